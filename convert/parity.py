"""Compare this port with what the official package gave: cases, the inputs they need, and the checks.

Used by `make_goldens.py`, by the tests on committed goldens and live, and by `check_parity.py` on any checkpoint.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.networks.codec import codec as codec_networks
from mlx_qwen3tts.networks.speaker.mel import log_mel
from mlx_qwen3tts.synthesis.sampling import GenerationConfig, Sampler, filter_logits, unseen
from mlx_qwen3tts.tuning.loss import REST, batch, example, losses, voiced
from mlx_qwen3tts.voices.voice import Voice

NEAR_TIE = 1e-4  # where the reference's two best logits lie closer, a greedy code may differ honestly


def vector(dimension, seed):
    """A made-up speaker vector."""
    return (np.random.RandomState(seed).random_sample(dimension) * 2 - 1).astype(np.float32) * 3**0.5


def recording(path, seed, seconds, rate=24000, channels=1):
    """Write a made-up recording: a wandering harmonic tone with noise, as a 16-bit WAV."""
    import soundfile

    random = np.random.RandomState(seed)
    time = np.arange(int(seconds * rate)) / rate
    tracks = []
    for _ in range(channels):
        pitch = random.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * random.uniform(1, 4) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        tone = sum(np.sin(k * phase) / k for k in range(1, 9))
        loudness = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time + random.uniform(0, 6))
        tracks.append(0.15 * loudness * tone + 0.02 * random.uniform(-1, 1, time.size))
    soundfile.write(str(path), np.stack(tracks, axis=1), rate, subtype="PCM_16")
    return path


def codes(frames, seed, codebooks=16, size=2048):
    """Made-up codes [frames, codebooks], among them code 0."""
    drawn = np.random.RandomState(seed).randint(0, size, (frames, codebooks))
    drawn[::7, 0] = 0
    return drawn.astype(np.int16)


def materialise(cases, folder, dimension, codebooks=16, size=2048):
    """Copies of the cases with their made-up inputs written to `folder` and named or spelled out."""
    made = []
    for original in cases:
        case = dict(original)
        name = case["name"].replace("/", "-")
        if "vector" in case:
            case["vector"] = vector(dimension, case["vector"]).tolist()
        if "morph" in case:
            case["morph_vector"] = vector(dimension, case["morph"]["to"]).tolist()
        if case["kind"] == "loss":
            case["codes"] = [
                codes(frames, seed, codebooks, size).tolist()
                for seed, frames in enumerate(case["frames"], case["seed"])
            ]
        if "audio" in case:
            case["audio"] = str(recording(Path(folder) / f"{name}.wav", **case["audio"]))
        if case["kind"] == "decode":
            np.save(Path(folder) / f"{name}.npy", codes(case["frames"], case["seed"], codebooks, size))
            case["codes"] = str(Path(folder) / f"{name}.npy")
        if case["kind"] == "sampling":
            np.save(Path(folder) / f"{name}.npy", sampling_logits(case))
            case["logits"] = str(Path(folder) / f"{name}.npy")
        made.append(case)
    return made


def sampling_logits(case):
    """Random logits [rows, vocabulary], rounded so that there are ties."""
    logits = np.random.RandomState(case["seed"]).standard_normal((case["rows"], case["vocabulary"])) * 4
    return np.round(logits, case["decimals"]).astype(np.float32)


def run_reference(model, cases, out, python=None):
    """Have the official package run materialised cases; its arrays as a dict of name to array."""
    python = python or os.environ.get("QWEN_TTS_PYTHON")
    if not python:
        raise RuntimeError("set QWEN_TTS_PYTHON to the python of an environment that has the official package")
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({"model": str(model), "cases": cases}))
        script = Path(__file__).with_name("reference.py")
        environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "PYTHONPATH")}
        done = subprocess.run(
            [python, str(script), str(job), str(out)], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.stderr.write(done.stderr[-4000:])
            raise RuntimeError(f"the official package failed on {model}")
    return dict(np.load(out))


# The checks. Each returns the figures it measured and raises AssertionError where parity does not hold.


def compare_codes(ours, case, expected):
    """Greedy codes equal in every frame. After a near-tie of the reference the rest may differ, and is not compared."""
    theirs, gaps = expected["codes"].astype(np.int32), expected["gaps"]
    shared = min(len(ours), len(theirs))
    differs = np.argwhere(ours[:shared] != theirs[:shared])
    if len(differs):
        frame, book = differs[0]
        gap = gaps[frame, book]
        assert gap < NEAR_TIE, f"{case['name']}: frame {frame} codebook {book} differs, logits {gap:.2e} apart"
        print(f"{case['name']}: near-tie at frame {frame} codebook {book}, logits {gap:.2e} apart")
        return {"frames": int(frame), "near_tie": float(gap)}
    if len(ours) != len(theirs):
        at_end = expected["gaps"][shared, 0] if len(theirs) > shared else expected["end_gap"][0]
        assert at_end < NEAR_TIE, f"{case['name']}: {len(ours)} frames, reference {len(theirs)}"
        print(f"{case['name']}: near-tie at end of speech, logits {at_end:.2e} apart")
    return {"frames": shared}


def voice_of(tts, case):
    """The Voice of a materialised case, or None."""
    if "vector" in case:
        return Voice(np.array(case["vector"], np.float32))
    if "audio" in case:
        return tts.clone(case["audio"], case.get("ref_text"))
    return tts.preset(case["preset"]) if "preset" in case else None


def speak(tts, case, voice):
    """The greedy Speech of a materialised case."""
    morphing = {}
    if "morph" in case:
        seconds = case["morph"]["frames"] * tts.codec.samples_per_frame / tts.sample_rate
        morphing = {"morph": Voice(np.array(case["morph_vector"], np.float32)), "morph_seconds": seconds}
    return tts.generate(
        case["text"],
        voice,
        language=case["language"],
        instruct=case.get("instruct") or None,
        text_mode=case["layout"],
        greedy=True,
        max_tokens=case["max_tokens"],
        repetition_penalty=case.get("repetition_penalty"),
        seed=0,
        **morphing,
    )


def check_speak(tts, case, expected):
    """Ids equal, prompt ≤ 1e-5, first logits close, greedy codes equal, the audio's tail ≤ 1e-4."""
    voice = voice_of(tts, case)
    role, ids = tts.tokenizer.assistant(case["text"])
    assert [*role, *ids] == expected["ids"][:-5].tolist(), f"{case['name']}: token ids differ"
    prompt = tts.prompt(case["text"], voice, case["language"], case.get("instruct") or None, case["layout"])
    theirs = expected["prompt"]
    assert prompt.embeddings.shape == theirs.shape, f"{case['name']}: prompt {prompt.embeddings.shape} {theirs.shape}"
    figures = {"prompt": float(np.abs(np.array(prompt.embeddings) - theirs).max())}
    # A speaker vector of the audio's own carries the encoder's tolerance into the prompt.
    limit = 1e-5 if "audio" not in case else 1e-4 * float(np.abs(theirs).max())
    assert figures["prompt"] <= limit, f"{case['name']}: prompt differs by {figures['prompt']:.2e}"
    text = prompt.text
    trailing = np.concatenate([np.array(text.known), np.array(text.pad)[None]])[: len(expected["trailing"])]
    figures["trailing"] = float(np.abs(trailing - expected["trailing"]).max())
    assert figures["trailing"] <= 1e-5, f"{case['name']}: trailing text differs by {figures['trailing']:.2e}"
    speech = speak(tts, case, voice)
    figures |= compare_codes(np.array(speech.codes), case, expected)
    if "near_tie" not in figures and len(speech.codes) == len(expected["codes"]):
        ended = len(expected["codes"]) < case["max_tokens"] - 1
        if ended:
            assert speech.finish_reason == "stop", f"{case['name']}: finish reason {speech.finish_reason}"
        tail = np.array(speech.audio)[-len(expected["tail"]) :]
        # The official package decodes 300 frames at a time with 25 of context; beyond that only one pass is exact.
        total = len(speech.codes) + (voice.ref_codes.shape[0] if voice and voice.ref_codes is not None else 0)
        if total <= 300:
            figures["audio"] = float(np.abs(tail - expected["tail"][-len(tail) :]).max())
            assert figures["audio"] <= 1e-4, f"{case['name']}: audio differs by {figures['audio']:.2e}"
    return figures


def relative(ours, theirs):
    """The distance of two arrays over the norm of the second."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def loss_batch(tts, case, voice):
    """The Batch of a materialised case."""
    given = zip(case["texts"], case["codes"], strict=True)
    prompts = [(tts.prompt(text, voice, case["language"], None, case["layout"]), codes) for text, codes in given]
    examples = [example(tts.talker, prompt, mx.array(codes)) for prompt, codes in prompts]
    return batch(examples, tts.config.talker.codec_eos_token_id)


def faulty_losses(tts, case, voice):
    """What each fault of the official recipe makes of the loss, by this port: {name: value}."""
    given, vector = loss_batch(tts, case, voice), voice.embedding
    talker, x = tts.talker, voiced(given, vector)
    entropy = functools.partial(nn.losses.cross_entropy, reduction="mean")
    where, codes = given.places, given.codes[:, 1:]
    found = {"twice": entropy(talker.foresee(x, where - 1)[0], given.labels)}
    late = talker.foresee(x, where[given.frames] + 1)[1]
    found["after"] = entropy(talker.foresee_rest(late, given.codes), codes)
    states = talker.foresee(x, where[given.frames])[1]
    found["book"] = entropy(talker.foresee_rest(states, given.codes)[:, :-1], codes[:, 1:])
    projection, talker.text_projection = talker.text_projection, lambda x: x
    try:
        given = loss_batch(tts, case, voice)
        found["projection"] = entropy(talker.foresee(voiced(given, vector), where)[0], given.labels)
    except ValueError:  # widths that cannot be added
        found["projection"] = mx.array(float("nan"))
    finally:
        talker.text_projection = projection
    return {name: value.item() for name, value in found.items()}


def check_loss(tts, case, expected):
    """Both losses ≤ 1e-5 apart, gradients 1e-5 of their norm; each fault of the official recipe gives another loss, and
    the very one that the official package gives."""
    voice, talker = voice_of(tts, case), tts.talker
    given = loss_batch(tts, case, voice)
    attention, other = talker.model.layers[0].self_attn, talker.code_predictor.model.layers[0].self_attn
    layers = {"talker_q": attention.qkv_proj, "predictor_v": other.qkv_proj}
    layers["last_head"] = talker.code_predictor.lm_head[-1]

    def total(arrays):
        for name, layer in layers.items():
            layer.weight = arrays[name]
        first, rest = losses(talker, given, arrays["vector"])
        return first + REST * rest, first, rest

    arrays = {"vector": voice.embedding, **{name: layer.weight for name, layer in layers.items()}}
    try:
        (_, first, rest), gradients = mx.value_and_grad(total)(arrays)
    finally:
        for name, layer in layers.items():
            layer.weight = arrays[name]
    q, k = attention.heads * attention.head_dim, other.heads + other.kv_heads
    gradients["talker_q"] = gradients["talker_q"][:q]
    gradients["predictor_v"] = gradients["predictor_v"][k * other.head_dim :]
    figures = {"first": abs(first.item() - expected["first"]), "rest": abs(rest.item() - expected["rest"])}
    for name, gradient in gradients.items():
        flat, theirs = np.array(gradient).ravel(), expected[f"gradient_{name}"]
        assert flat[:: max(1, flat.size // 500) | 1].shape == theirs.shape, f"{case['name']}: shape of {name}"
        part = relative(flat[:: max(1, flat.size // 500) | 1], theirs)
        figures[name] = max(part, relative(np.linalg.norm(flat.astype(np.float64)), expected[f"norm_{name}"]))
    for name, value in figures.items():
        assert value <= 1e-5, f"{case['name']}: {name} differs by {value:.2e}"
    for name, value in faulty_losses(tts, case, voice).items():
        theirs = expected[f"fault_{name}"]
        assert np.isnan(value) == np.isnan(theirs), f"{case['name']}: fault {name} gives {value}, reference {theirs}"
        if np.isnan(value):
            continue
        mended = expected["first" if name in ("twice", "projection") else "rest"]
        figures[f"fault_{name}"] = float(value - mended)
        assert abs(value - theirs) <= 1e-5, f"{case['name']}: fault {name} gives {value}, reference {theirs}"
        assert abs(value - mended) > 1e-3, f"{case['name']}: fault {name} does nothing"
    return figures


def check_tokenize(tts, case, expected):
    """Token ids equal, over the whole template."""
    for i, text in enumerate(case["texts"]):
        role, ids = tts.tokenizer.assistant(text)
        assert [*role, *ids] == expected[str(i)][:-5].tolist(), f"token ids of {text!r} differ"
    return {"texts": len(case["texts"])}


def check_embed(tts, case, expected):
    """Log-mel ≤ 1e-4, speaker vector's relative error ≤ 1e-4."""
    figures = {}
    if "mel" in expected:
        mel = np.array(log_mel(mx.array(read_audio(case["audio"], 24000))))[: case.get("mel_frames")]
        assert mel.shape == expected["mel"].shape
        figures["mel"] = float(np.abs(mel - expected["mel"]).max())
        assert figures["mel"] <= 1e-4, f"{case['name']}: mel differs by {figures['mel']:.2e}"
    ours, theirs = np.array(tts.embed(case["audio"])), expected["vector"]
    figures["vector"] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    assert figures["vector"] <= 1e-4, f"{case['name']}: vector differs by {figures['vector']:.2e}"
    return figures


def check_encode(tts, case, expected):
    """Codes equal."""
    ours, theirs = np.array(tts.codec.encode(case["audio"])), expected["codes"].astype(np.int32)
    assert ours.shape == theirs.shape, f"{case['name']}: codes {ours.shape}, reference {theirs.shape}"
    differing = int((ours != theirs).any(axis=1).sum())
    assert differing == 0, f"{case['name']}: {differing} of {len(ours)} frames differ"
    return {"frames": len(ours)}


def check_decode(tts, case, expected):
    """Samples ≤ 1e-4 apart, on audio that is not clipped."""
    assert expected["peak"] < 1, "the case is clipped and shows nothing"
    given = mx.array(np.load(case["codes"]).astype(np.int32))
    audio = np.array(codec_networks.decode(tts.codec.decoder, given))
    figures = {
        "audio": float(np.abs(audio[:: case["stride"]] - expected["samples"]).max()),
        "tail": float(np.abs(audio[-1920:] - expected["tail"]).max()),
    }
    assert max(figures.values()) <= 1e-4, f"{case['name']}: audio differs by {max(figures.values()):.2e}"
    return figures


def check_sampling(tts, case, expected):
    """Kept set equal, probabilities ≤ 1e-6 apart."""
    settings = dict(case["settings"])
    end = settings.pop("end")
    talker = tts.config.talker
    assert (talker.vocab_size, talker.codec_eos_token_id) == (case["vocabulary"], end)
    sampling = GenerationConfig(**settings)
    sampler = Sampler(sampling, talker, tts.config.predictor)
    logits = mx.array(np.load(case["logits"]))
    seen = unseen(1, talker.vocab_size)
    for token in case["history"]:
        seen = seen | (mx.arange(logits.shape[1])[None] == token)
    processed = sampler.processed(logits, seen, sampler.mask([len(case["history"])]))
    kept = filter_logits(processed, sampling.temperature, sampling.top_k, sampling.top_p)
    ours = np.array(mx.softmax(kept, axis=-1))
    theirs = np.zeros_like(ours)
    theirs[expected["rows"], expected["columns"]] = expected["values"]
    assert ((ours > 0) == (theirs > 0)).all(), f"{case['name']}: kept sets differ"
    figures = {"probability": float(np.abs(ours - theirs).max())}
    assert figures["probability"] <= 1e-6, f"{case['name']}: probabilities differ by {figures['probability']:.2e}"
    return figures


def check(tts, case, arrays):
    """Run one materialised case against the reference's arrays."""
    prefix = f"{case['name']}/"
    expected = {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
    return globals()[f"check_{case['kind']}"](tts, case, expected)
