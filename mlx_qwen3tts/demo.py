"""`mlx_qwen3tts.demo`: hear what a voice as a vector is: two voices, their blend and a higher one, offline.

The miniature that comes with the package speaks. Two recordings that come with it become vectors; half of each is a
third voice; ten labelled voices give a direction for pitch, and a step along it raises the lower voice.
"""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli
from .errors import install_hint

if TYPE_CHECKING:
    from .voices.voice import Voice

MODEL = "miniature"
TEXT = "Hello, this is my voice."
STRENGTH = 0.6  # radii of the voice space: some seven semitones


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("demo", __doc__)
    options.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="(default: demo)")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(demo, build_parser().parse_args(arguments))


def labelled(folder: Path) -> "tuple[list[Voice], list[float]]":
    """The voices of a folder and the F0 of each in Hz, from its attributes."""
    from .voices.voice import Voice

    voices = [Voice.load(path) for path in sorted(folder.glob("*.safetensors"))]
    return voices, [float(voice.attributes["f0"]) for voice in voices]


def demo(options: argparse.Namespace) -> None:
    import numpy as np

    from .audio.reading import read_audio
    from .checkpoint import hub
    from .synthesis.tts import Qwen3TTS
    from .voices.directions.direction import Direction
    from .voices.voice import Voice

    folder, shipped = options.output, hub.resolve(MODEL)
    folder.mkdir(parents=True, exist_ok=True)
    model = Qwen3TTS.from_pretrained(MODEL, dtype="float32")  # bfloat16 takes a CPU twice as long
    recordings = {name: shipped / "recordings" / f"{name}.flac" for name in ("low", "high")}
    cli.note(f"1. Two recordings, each embedded to one vector of {model.embedding_dim} numbers.")
    vectors = {name: model.embed(path) for name, path in recordings.items()}
    cli.note("2. Half of each vector is a voice of its own: 0.5*low + 0.5*high")
    vectors["blend"] = 0.5 * vectors["low"] + 0.5 * vectors["high"]
    voices, pitches = labelled(shipped / "voices")
    cli.note(f"3. A direction from {len(voices)} voices labelled with their pitch, and the low voice moved along it:")
    pitch = Direction.fit(voices, pitches, method="ridge")
    pitch.save(folder / "pitch.safetensors")
    cli.note(f"   low + {STRENGTH:g}*@pitch (voices left out of the fit: correlation {pitch.report.correlation:.2f})")
    vectors["higher"] = pitch.apply(vectors["low"], STRENGTH)
    cli.note(f"4. Each says: {TEXT}")
    sounds, files = {}, []
    for name, vector in vectors.items():
        Voice(vector).save(folder / f"{name}.npy")
        speech = model.generate(TEXT, vector, language="english", greedy=True)
        speech.save(folder / f"{name}.wav")
        sounds[name] = np.array(speech.audio)
        files += [folder / f"{name}.npy", folder / f"{name}.wav"]
    files.append(folder / "pitch.safetensors")
    if any(importlib.util.find_spec(name) is None for name in ("librosa", "matplotlib")):
        cli.note(f"To see their pitch and spectrograms: {install_hint('voices')}, and run this again.")
    else:
        from .audio.measures import f0_track
        from .audio.spectrogram import draw_spectrograms

        picture, tracks = folder / "voices.png", {name: f0_track(sound) for name, sound in sounds.items()}
        draw_spectrograms(picture, sounds, tracks)
        files.append(picture)
        cli.note("   median F0 of the recordings and of the speech:")
        for name, track in tracks.items():
            spoken = f"{np.nanmedian(track):4.0f} Hz"
            recorded = ""
            if name in recordings:
                recorded = f"{np.nanmedian(f0_track(read_audio(recordings[name], 24000))):4.0f} Hz"
            cli.note(f"   {name:8} {recorded:>8} {spoken:>10}")
    for file in files:
        print(file)


if __name__ == "__main__":
    main()
