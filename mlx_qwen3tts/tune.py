"""`mlx_qwen3tts.tune`: teach a model a voice from recordings and what is said in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import OutputError, listed
from .voices.commands.shared import add_rights, rights_of

if TYPE_CHECKING:
    from .tuning.data import Data
    from .tuning.judge import Figures
    from .tuning.takes import Takes
    from .tuning.vector import Options, VectorFit, Verdict

EXAMPLES = """\
  mlx_qwen3tts.tune vector --data clips --output anna.safetensors --consent given
"""
FOLDER = ".tuning"  # instead of the output's extension: the folder of the curves and of what is unfinished


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("tune", __doc__, EXAMPLES)
    ways = options.add_subparsers(dest="way", metavar="WAY", required=True, parser_class=cli.Parser)
    vector = ways.add_parser("vector", help="fit the vector alone; the result is an ordinary voice file")
    cli.add_model(vector, dtype=True)
    vector.add_argument(
        "--data",
        required=True,
        metavar="D",
        help="recordings and their texts: a folder of train.jsonl (and valid.jsonl, test.jsonl), of metadata.csv, or "
        "of recordings with a .txt beside each; or a .jsonl or metadata.csv",
    )
    vector.add_argument("--output", required=True, metavar="F", help=".safetensors, .npy or .json")
    vector.add_argument("--iters", type=int, default=50, metavar="N", help="steps (default: 50)")
    vector.add_argument("--learning-rate", type=float, metavar="X", help="its peak (default: fits the vector's norm)")
    vector.add_argument("--batch-size", type=int, default=8, metavar="N", help="clips a step (default: 8)")
    vector.add_argument("--anchor", type=float, default=0.25, metavar="X", help="cost of leaving the x-vector (0.25)")
    vector.add_argument("--val-batches", type=int, default=25, metavar="N", help="held-out batches, -1: all (25)")
    vector.add_argument("--steps-per-eval", type=int, default=10, metavar="N", help="steps between them (default: 10)")
    vector.add_argument(
        "--save-every", type=int, default=10, metavar="N", help="steps between the states for --resume (10)"
    )
    vector.add_argument("--resume", action="store_true", help="go on where the same command was stopped")
    vector.add_argument("--grad-checkpoint", action="store_true", help="less memory, a third more time")
    vector.add_argument(
        "--predictor-frames",
        type=int,
        default=256,
        metavar="N",
        help="frames a step for the code predictor, 0: all (256)",
    )
    vector.add_argument("--listen", type=int, default=3, metavar="N", help="rounds of correcting by its own speech (3)")
    vector.add_argument("--text-mode", default="streaming", metavar="M", help="streaming or full, as it will be spoken")
    vector.add_argument("--skip", action="store_true", help="leave out the clips that cannot be used")
    vector.add_argument("--seed", type=int, default=0, metavar="N", help="0 to 4294967295 (default: 0)")
    add_rights(vector)
    cli.add_json(vector)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    cli.run(vector, build_parser().parse_args(arguments))


def folder_of(output: Path) -> Path:
    return output.with_suffix(FOLDER)


def check_output(options: argparse.Namespace) -> Path:
    from .files.output import check_folder, check_not_read, check_writable
    from .voices.voice import check_suffix

    output = Path(options.output)
    check_suffix(output, "output")
    check_writable(output)
    check_not_read(output, options.data)
    check_folder(folder_of(output), "folder")
    return output


def options_of(options: argparse.Namespace) -> Options:
    from .tuning.vector import Options

    return Options(
        iters=options.iters,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        anchor=options.anchor,
        steps_per_eval=options.steps_per_eval,
        val_batches=options.val_batches,
        seed=options.seed,
        layout=options.text_mode,
        language=options.language or "auto",
        sample=options.predictor_frames,
        grad_checkpoint=options.grad_checkpoint,
        listen=options.listen,
    )


def vector(options: argparse.Namespace) -> None:
    from .checks import whole
    from .tuning.data import read_data

    output, rights, chosen = check_output(options), rights_of(options), options_of(options)
    whole(options.save_every, "save_every", 1)
    data = read_data(options.data)
    from .synthesis.tts import Qwen3TTS
    from .tuning.vector import VectorFit, check_model

    tts = Qwen3TTS.from_pretrained(options.model, options.dtype)
    check_model(tts)
    takes, left_out = listen(data, tts, options)
    tuning = VectorFit(tts, takes, chosen)
    doubts = doubts_of(tuning)
    for doubt in doubts:
        cli.note(f"warning: {doubt}")
    run(tuning, output, options)
    with cli.bar("speaking", "step", form="{desc}: {n} steps [{elapsed}]") as advance:
        verdict = tuning.verdict(lambda _: advance(1))
    write(tuning, verdict.vector, verdict.kept, output, rights)
    from .tuning import unfinished

    unfinished.forget(folder_of(output))
    report(tuning, verdict, output, doubts, left_out, options)


def listen(data: Data, tts: Any, options: argparse.Namespace) -> tuple[Takes, dict[str, str]]:
    """The clips, read, split, encoded and embedded; and those left out."""
    from .tuning import doubts
    from .tuning.data import held_out
    from .tuning.takes import Codes, listen, usable

    with cli.bar("reading", "clip", total=len(data.clips)) as advance:
        data, wrong = usable(data, options.skip, advance)
    for problem in wrong.values():
        cli.note(f"left out: {problem}")
    data = held_out(data, options.seed)
    for doubt in doubts.speakers(data.clips, tts.speaker_encoder, tts.folder.folder):
        cli.note(f"warning: {doubt}")
    codes = Codes(tts.codec)
    with cli.bar("encoding", "clip", total=len(data.clips)) as advance:
        takes = listen(data, codes, tts.speaker_encoder.embed, advance)
    seconds = sum(take.seconds for take in takes.all)
    kept = f"{len(takes.valid)} held out" + (f", {len(takes.test)} to be spoken" if takes.test else "")
    cli.note(f"{len(takes.all)} clips, {seconds:.0f} s: {len(takes.train)} to learn from, {kept}")
    return takes, wrong


def doubts_of(tuning: VectorFit) -> list[str]:
    from .tuning import doubts

    losses = tuning.losses()
    takes = [take for take, _ in losses]
    return [*doubts.outliers(takes), *doubts.transcripts(takes, [loss for _, loss in losses])]


def run(tuning: VectorFit, output: Path, options: argparse.Namespace) -> None:
    """Make the steps, with curves and what --resume needs beside the output."""
    from .tuning import unfinished
    from .tuning.curves import write_csv, write_svg
    from .tuning.vector import NEW, OLD

    fit, folder = tuning.fit, folder_of(output)
    begun = unfinished.identity(
        {
            "model": str(tuning.tts.folder.folder.resolve()),
            "clips": [[take.clip.name, take.clip.text, unfinished.digest(take.codes)] for take in tuning.takes.all],
            "options": repr(tuning.options),
        }
    )
    if options.resume:
        unfinished.restore(folder, fit, begun)
        cli.note(f"going on at step {fit.step}")
    folder.mkdir(exist_ok=True)
    complained = False

    def keep(unfinished_too: bool) -> None:
        """The curves and the state, whose loss is no reason to lose the run as well."""
        nonlocal complained
        try:
            write_csv(folder / "steps.csv", fit.rows)
            write_svg(folder / "curves.svg", fit.rows, fit.best_step, output.stem)
            if unfinished_too:
                unfinished.save(folder, fit, begun)
        except OutputError as error:
            if not complained:
                cli.note(f"warning: {error}; the run goes on, but --resume will not")
            complained = True

    try:
        with cli.bar("fitting", "step", total=fit.settings.iters) as advance:
            advance(fit.step)
            for row in fit:
                if row.figures:
                    advance(1)
                if fit.burst is None and row.figures and fit.step % options.save_every == 0:
                    keep(True)
    except KeyboardInterrupt:
        keep(True)
        write(tuning, tuning.best, NEW if fit.best_step > 0 else OLD, output, rights_of(options))
        said = "--resume goes on" if not complained else "it cannot go on"
        cli.note(f"interrupted at step {fit.step}: the best so far, of step {fit.best_step}, is kept unheard; {said}")
        sys.exit(cli.stopped_status())
    keep(False)
    if fit.burst is not None:
        rate = fit.settings.learning_rate
        cli.note(f"warning: the loss was not a number at step {fit.burst}; a learning rate below {rate:g} may do")


def write(tuning: VectorFit, vector: Any, kept: str, output: Path, rights: dict[str, str]) -> None:
    from .voices.voice import Voice

    other = {"recordings": str(len(tuning.takes.all))}
    source = tuning.tts.folder.folder.name
    Voice(
        vector,
        source_model=source,
        language=rights.get("language"),
        consent=rights.get("consent"),
        license=rights.get("license"),
        recipe=tuning.recipe(kept),
        other=other,
    ).save(output)


def lines_of(verdict: Verdict) -> list[str]:
    """The figures side by side."""

    def row(name: str, show: Callable[[Figures], str]) -> str:
        return f"{name:34}" + "".join(f"{show(figures):>10}" for figures in verdict.figures.values())

    def pitch(figures: Figures) -> str:
        return "–" if figures.pitch is None else f"{figures.pitch:+.2f}"

    def clarity(figures: Figures) -> str:
        return "–" if figures.clarity is None else f"{figures.clarity:.2f}"

    return [
        " " * 34 + "".join(f"{name:>10}" for name in verdict.figures),
        row("loss of the clips held out", lambda figures: f"{figures.loss:.3f}"),
        row("distance of speech to recordings", lambda figures: f"{figures.distance:.2f}"),
        row("cosine of speech and recordings", lambda figures: f"{figures.cosine:.4f}"),
        row("pitch off, semitones", pitch),
        row("length off", lambda figures: f"{figures.length:+.0%}"),
        row("clarity of the words", clarity),
        row("speeches that ended", lambda figures: f"{figures.ended}/{figures.of}"),
        row("norm", lambda figures: f"{figures.norm:.2f}"),
    ]


def report(
    tuning: VectorFit,
    verdict: Verdict,
    output: Path,
    doubts: list[str],
    left_out: dict[str, str],
    options: argparse.Namespace,
) -> None:
    from .tuning.vector import OLD

    if not options.json:
        print("\n".join(lines_of(verdict)))
    if verdict.figures[OLD].pitch is None:
        cli.note("pitch could not be measured: there is none, or librosa is missing (the extra `voices` brings it)")
    for name, reasons in verdict.reasons.items():
        if reasons:
            cli.note(f"the {name} vector is not better: {listed(reasons, 4)}")
    better = "" if verdict.kept == OLD else ", which is better,"
    cli.note(f"the {verdict.kept}{' vector' * (verdict.kept != OLD)}{better} is written to {output}")
    cli.note(f"curves: {folder_of(output) / 'curves.svg'}")
    if options.json:
        figures = {name: found.as_dict() for name, found in verdict.figures.items()}
        told = {"output": str(output), "kept": verdict.kept, "reasons": verdict.reasons, "figures": figures}
        steps = {"steps": tuning.fit.step, "best_step": tuning.fit.best_step, "burst": tuning.fit.burst}
        clips = {"clips": len(tuning.takes.all), "left_out": list(left_out.values()), "doubts": doubts}
        cli.print_json({**told, **steps, **clips, "recipe": tuning.recipe(verdict.kept)})


if __name__ == "__main__":
    main()
