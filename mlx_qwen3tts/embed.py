"""`mlx_qwen3tts.embed`: the speaker's vector of one or more recordings."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from . import cli
from .errors import InvalidValue

EXAMPLES = """\
  mlx_qwen3tts.embed speaker.wav --output speaker.npy
  mlx_qwen3tts.embed a.wav b.wav c.wav --average --prepare --output speaker.safetensors
  mlx_qwen3tts.embed recordings/*.wav --output voices/
"""


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("embed", __doc__, EXAMPLES)
    cli.add_model(options)
    options.add_argument("audio", nargs="+", metavar="AUDIO", help="recordings, 0.5 to 60 s each")
    options.add_argument(
        "--output", required=True, metavar="F", help=".npy, .safetensors or .json, or FOLDER/, which is made if need be"
    )
    options.add_argument("--average", action="store_true", help="one vector from several recordings of one speaker")
    options.add_argument("--prepare", action="store_true", help="trim silence and level the recordings")
    options.add_argument("--workers", metavar="URL", help="scheduler of a dask cluster that listens: tcp://host:8786")
    cli.add_json(options)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(embed, build_parser().parse_args(arguments))


def outputs(options: argparse.Namespace) -> list[Path]:
    """The file of every vector, checked before any work: one, or in a folder one for each recording by its name."""
    from .files.output import check_folder, check_not_read, check_writable
    from .voices.voice import SUFFIXES

    if not options.output:
        raise InvalidValue("--output is empty")
    target = Path(options.output)
    folder = target.is_dir() or (target.suffix not in SUFFIXES and options.output.endswith("/"))
    if not folder:
        if target.suffix not in SUFFIXES:
            known = f"extension {target.suffix!r} is not one of {' '.join(SUFFIXES)}"
            raise InvalidValue(f"output {target}: {known}, and there is no such folder; end it with / to make one")
        if len(options.audio) > 1 and not options.average:
            raise InvalidValue(f"{len(options.audio)} recordings need --average or a folder as --output")
        check_not_read(target, *options.audio)
        check_writable(target)
        return [target]
    if options.average:
        raise InvalidValue(f"--average makes one vector: --output {options.output} must be a file")
    check_folder(target, "output")
    files = [target / f"{Path(audio).stem}.safetensors" for audio in options.audio]
    if len(set(files)) < len(files):
        raise InvalidValue("two recordings have the same name; their vectors would overwrite each other")
    for file in files if target.is_dir() else []:
        check_not_read(file, *options.audio)
        check_writable(file)
    return files


def embed(options: argparse.Namespace) -> None:
    files = outputs(options)
    import mlx.core as mx

    from .checkpoint.speaker import SpeakerEncoder
    from .voices.average import average
    from .voices.voice import Voice

    with cli.bar("embedding", "recording", total=len(options.audio)) as advance:
        if options.workers:
            from .cluster.remote import listen

            vectors, source = listen(options.workers, options.model, options.audio, options.prepare, advance)
        else:
            encoder = SpeakerEncoder.from_pretrained(options.model)
            source = encoder.source
            vectors = cli.each(options.audio, lambda audio: encoder.encode(audio, options.prepare), advance)
    result = {"output": [str(file) for file in files], "dimension": vectors[0].shape[0]}
    metadata = {"source_model": source}
    if options.average and len(vectors) > 1:
        mean = average(mx.stack(vectors))
        distances = [round(distance, 4) for distance in mean.distances]
        result |= {"spread": mean.spread, "distances": dict(zip(options.audio, distances, strict=True))}
        result["outliers"] = [options.audio[i] for i in mean.outliers]
        cli.note(f"{len(vectors)} recordings, spread {mean.spread:.1%} of the vector's norm")
        one, two = (options.audio[i] for i in mean.farthest)
        result["apart"] = {"recordings": [one, two], "distance": mean.apart, "two_speakers": mean.two_speakers}
        if mean.two_speakers:
            warnings.warn(
                f"{one} and {two} differ by {mean.apart:.0%} of the vector's norm, as two speakers do, or one who is "
                "calm and then angry or joyful: are they of one speaker?",
                stacklevel=2,
            )
        for name in result["outliers"]:
            warnings.warn(f"{name} is far from the others: another speaker or a bad recording?", stacklevel=2)
        vectors = [mean.mean]
        metadata["recordings"] = str(len(options.audio))
    files[0].parent.mkdir(exist_ok=True)  # a folder that --output names with a / at its end
    for vector, file in zip(vectors, files, strict=True):
        Voice(vector, metadata=metadata).save(file)
        cli.note(f"{vector.shape[0]} dimensions, norm {mx.linalg.norm(vector).item():.2f}, written to {file}")
    if options.json:
        cli.print_json(result)


if __name__ == "__main__":
    main()
