"""The sections of `benchmarks.gpu` that ask whether a GPU says the same: its forms, parity, bfloat16, the miniature."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import ladder, self_check
from benchmarks.differences import first_code
from benchmarks.gpu import ROOT
from benchmarks.gpu_common import Section, checkpoint, load_speaker
from benchmarks.gpu_proof import precision
from convert.make_goldens import make_checkpoint
from convert.parity import check, materialise, speak, voice_of
from convert.suite import SUITE
from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.audio.measures import f0_track
from mlx_qwen3tts.checkpoint import hub

GOLDENS = ROOT / "tests" / "goldens"
MINIATURE = ROOT / "tests" / "assets" / "miniature_codes.npz"
# What the miniature's golden says, in its order.
LINES = ("Hello, this is my voice.", "Good morning, today is monday.", "The red car is big and the bird is small.")


def examine(tts: Qwen3TTS, case: dict, arrays: dict) -> dict[str, object]:
    """A case by the tests' own check, and where that fails on speech, what its codes are all the same."""
    try:
        return {"passed": True, **check(tts, case, arrays)}
    except RuntimeError as error:  # what MLX raises for what a backend lacks
        return {"passed": False, "raised": str(error).strip()}
    except AssertionError as error:
        found = {"passed": False, "error": str(error).strip()}
    if case["kind"] == "speak":
        prefix = f"{case['name']}/"
        expected = {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
        spoken = np.array(speak(tts, case, voice_of(tts, case)).codes)
        found |= first_code(spoken, expected["codes"].astype(np.int32), expected["gaps"])
    return found


def parity(section: Section) -> None:
    """The goldens of the official package, all cases of the suite, in float32."""
    numbers = precision()
    section.record(precision=numbers)
    section.say(f"float32 product: relative error {numbers['relative_error']:.1e}, TF32: {numbers['tf32']}")
    passed, codes_equal, spoken = 0, 0, 0
    total = sum(len(cases) for _, cases in SUITE.values())
    for name, (_, cases) in SUITE.items():
        folder, dimension = make_checkpoint(name, section.options.work / "suite")
        tts, arrays = Qwen3TTS.from_pretrained(folder, "float32"), dict(np.load(GOLDENS / f"{name}.npz"))
        for case in materialise(cases, folder, dimension):
            start = time.perf_counter()
            found = examine(tts, case, arrays)
            section.record(checkpoint=name, case=case["name"], seconds=time.perf_counter() - start, **found)
            passed += found["passed"]
            if case["kind"] == "speak":
                spoken += 1
                codes_equal += found.get("equal", found["passed"] and "near_tie" not in found)
            if not found["passed"] or "near_tie" in found:
                section.say(f"{name}/{case['name']}: {found}")
        section.say(f"{name}: done; so far {passed} cases passed, codes equal in {codes_equal} of {spoken} speeches")
    section.record(passed=passed, cases=total, codes_equal=codes_equal, speeches=spoken)
    section.say(f"{passed} of {total} cases passed; greedy codes equal in {codes_equal} of {spoken} speeches")


def agreement(folder: Path, voice: object, texts: Iterable[str], language: str) -> dict[str, object]:
    """How often a model in bfloat16 chooses as it does in float32, on what the latter says."""
    exact, rounded = (Qwen3TTS.from_pretrained(folder, dtype) for dtype in ("float32", "bfloat16"))
    sampler = exact.steps.of([exact.sampling])[0].sampler
    utterances, answers = [], []
    for seed, text in enumerate(texts):
        spoken = exact.generate(text, voice, language=language, seed=seed, max_tokens=61).codes
        prompts = [tts.prompt(text, tts.voice(voice), language) for tts in (exact, rounded)]
        logits = ladder.choices(exact.talker, prompts[0], spoken, sampler)
        utterances.append(ladder.Utterance(text, spoken, *logits))
        answers.append(ladder.choices(rounded.talker, prompts[1], spoken, sampler))
    return {"frames": sum(len(utterance.codes) for utterance in utterances), **ladder.compare(utterances, answers)}


def bfloat16(section: Section) -> None:
    """bfloat16 against float32 on the miniature and on random weights.

    On a CPU it is 98.9 % in all codebooks of the miniature before it was quantised, and 90 % in the later codebooks of
    the shipped one, whose quantised products a CPU adds up in bfloat16.
    """
    mini, folder = hub.SHIPPED["miniature"], checkpoint(section)
    low = Qwen3TTS.from_pretrained(mini, "float32").embed(mini / "recordings" / "low.flac")
    made_up = load_speaker(folder).voice
    for name, arguments in (
        ("miniature", (mini, low, LINES, "english")),
        (f"random {section.options.size}", (folder, made_up, ladder.TEXTS[:3], "auto")),
    ):
        found = agreement(*arguments)
        section.record(model=name, **found)
        section.say(
            f"{name}: bfloat16 chooses as float32 does in {found['agreement_0']:.1%} of codebook 0 and "
            f"{found['agreement_rest']:.1%} of the others, {found['frames']} frames"
        )


def forms(section: Section) -> None:
    """Every form that is chosen by device against the CPU's, alone and in models: `bench --self-check`."""
    outcomes = []
    for outcome in self_check.everything(self_check.default_models(section.options.work / "self-check")):
        outcomes.append(outcome)
        section.record(**asdict(outcome))
        section.say(str(outcome))
    section.say(self_check.verdict(outcomes))


def miniature(section: Section) -> None:
    """The miniature says its golden's lines: codes, F0, level, and the sound to listen to."""
    tts, golden = Qwen3TTS.from_pretrained("miniature", "float32"), np.load(MINIATURE)
    recordings, equal, total = hub.SHIPPED["miniature"] / "recordings", 0, 0
    for name in ("low", "high"):
        vector = tts.embed(recordings / f"{name}.flac")
        difference = float(np.abs(golden[f"{name}_vector"] - np.array(vector)).max())
        samples, rate = soundfile.read(recordings / f"{name}.flac", dtype="float32")
        section.say(f"{name}: x-vector within {difference:.1e}, F0 of the recording {median_f0(samples, rate):.0f} Hz")
        for mode in ("streaming", "full"):
            for number, text in enumerate(LINES):
                speech = tts.generate(text, vector, language="english", text_mode=mode, greedy=True)
                codes, audio = golden[f"{name}_{mode}_{number}"], np.array(speech.audio)
                same = np.array_equal(np.array(speech.codes), codes)
                found = {
                    "codes_equal": same,
                    "frames": len(speech.codes),
                    "reference_frames": len(codes),
                    "f0": median_f0(audio, tts.sample_rate),
                    "level": float(np.sqrt(np.mean(audio**2))),
                    "peak": float(np.abs(audio).max()),
                    "rtf": speech.stats["rtf"],
                }
                equal, total = equal + same, total + 1
                section.record(voice=name, mode=mode, text=text, vector=difference, **found)
                section.say(
                    f"{name:4} {mode:9} codes {'equal' if same else 'DIFFER'}, {found['frames']:3} frames, "
                    f"F0 {found['f0']:.0f} Hz, level {found['level']:.3f}, peak {found['peak']:.2f}"
                )
        speech.save(section.options.output / f"miniature-{name}.wav")
    section.say(f"codes equal in {equal} of {total}")


def median_f0(samples: np.ndarray, rate: int) -> float:
    return float(np.nanmedian(f0_track(samples, rate)))
