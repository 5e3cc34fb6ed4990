"""Stage 8: put what was trained where the package and the tests have it.

    python -m training.ship WORK

writes mlx_qwen3tts/miniature/ (the converted checkpoint, two recordings, ten labelled voices, the model card with what
`evaluate` measured) and tests/assets/recogniser.safetensors. Runs in the project's own environment.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.audio.writing import write_audio
from mlx_qwen3tts.voices.voice import Voice

from . import acoustics
from .corpus import Corpus
from .espeak import Espeak, Speaker
from .language import PUNCTUATION, WORDS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlx_qwen3tts" / "miniature"
RECORDINGS = {"low": Speaker(104, 0.95, 0.0, 140), "high": Speaker(198, 1.08, 0.2, 150)}
SAY = "Hello, this is my voice. The red car is big. I want to speak to you."
LABELLED = 10


def main():
    work = Path(sys.argv[1])
    laid_out(work, PACKAGE)
    model = Qwen3TTS.from_pretrained(PACKAGE)
    corpus = Corpus(work)
    spoken = corpus.by_speaker(corpus.of("valid"))
    chosen = {speaker: [corpus.samples(u) for u in own] for speaker, own in list(spoken.items())[:LABELLED]}
    labelled(model, chosen, corpus.speakers, PACKAGE)
    (PACKAGE / "README.md").write_text(card(work, sorted(WORDS)))
    assets = ROOT / "tests" / "assets"
    assets.mkdir(exist_ok=True)
    shutil.copy(work / "recogniser.safetensors", assets)
    report(PACKAGE)


def laid_out(work, package):
    """The converted checkpoint in a new folder, with the two recordings."""
    if package.exists():
        shutil.rmtree(package)
    shutil.copytree(work / "converted", package, ignore=shutil.ignore_patterns("README.md", "*.index.json"))
    (package / "recordings").mkdir()
    with tempfile.TemporaryDirectory() as data:
        espeak = Espeak(data)
        for name, speaker in RECORDINGS.items():
            espeak.use(speaker)
            write_audio(package / "recordings" / f"{name}.flac", espeak.say(SAY), 24000)


def labelled(model, sounds, speakers, package):
    """A voice of each speaker, {speaker: its recordings}, numbered by their pitch; speakers: what each was drawn as."""
    (package / "voices").mkdir()
    for number, speaker in enumerate(sorted(sounds, key=lambda speaker: speakers[speaker]["f0"]), 1):
        sound = np.concatenate(sounds[speaker])
        about = {"f0": f"{acoustics.f0(sound):.1f}", "formants": f"{speakers[speaker]['formants']:.3f}"}
        metadata = {"attributes": json.dumps(about), "source_model": "miniature"}
        metadata |= {"consent": "not-needed", "license": "Apache-2.0"}
        Voice(model.embed(sound), metadata=metadata).save(package / "voices" / f"voice{number:02}.safetensors")


def report(package):
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    print(f"{package}: {size / 1e6:.2f} MB")


def card(work, known):
    return filled(
        Path(__file__).parent / "card.md",
        work,
        count=len(known),
        words=textwrap.fill(", ".join(known), 120),
        punctuation=" ".join(PUNCTUATION),
    )


def filled(template, work, **more):
    """A model card: a template with what `evaluate` measured and the sums of the official folder's files."""
    rows = []
    for row in (row for part in json.loads((work / "evaluation.json").read_text()).values() for row in part["rows"]):
        gate = "" if "gate" not in row else f"{'at least' if row['least'] else 'at most'} {row['gate']:g}"
        met = {True: "yes", False: "**no**"}.get(row.get("met"), "")
        rows.append(f"| {row['name']} | {row['value']:.3g} | {gate} | {met} |")
    hashes = []
    for path in sorted((work / "official").rglob("*")):
        if path.is_file():
            name = path.relative_to(work / "official")
            hashes.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}")
    return template.read_text().format(rows="\n".join(rows), hashes="\n".join(hashes), **more)


if __name__ == "__main__":
    main()
