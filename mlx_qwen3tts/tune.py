"""`mlx_qwen3tts.tune`: teach a model a voice from recordings and what is said in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli
from .errors import OutputError, listed
from .voices.commands.shared import add_rights, rights_of

if TYPE_CHECKING:
    from .tuning.data import Data
    from .tuning.judge import Figures
    from .tuning.lora import LoraFit, LoraOptions
    from .tuning.takes import Take, Takes
    from .tuning.vector import Options, VectorFit, Verdict

EXAMPLES = """\
  mlx_qwen3tts.tune vector --data clips --output anna.safetensors --consent given
  mlx_qwen3tts.tune lora --data clips --vector --output anna-lora --consent given
"""
FOLDER = ".tuning"  # instead of the output's extension: the folder of the curves and of what is unfinished


def build_parser() -> argparse.ArgumentParser:
    options = cli.parser("tune", __doc__, EXAMPLES)
    ways = options.add_subparsers(dest="way", metavar="WAY", required=True, parser_class=cli.Parser)
    vector = ways.add_parser("vector", help="fit the vector alone; the result is an ordinary voice file")
    add_data(vector)
    vector.add_argument("--output", required=True, metavar="F", help=".safetensors, .npy or .json")
    vector.add_argument("--learning-rate", type=float, metavar="X", help="its peak (default: fits the vector's norm)")
    add_steps(vector, iters=50, batch_size=8, frames=256, text_mode="streaming")
    vector.add_argument("--listen", type=int, default=3, metavar="N", help="rounds of correcting by its own speech (3)")
    lora = ways.add_parser("lora", help="fit an adapter of low rank, for one speaker or several")
    add_data(lora)
    lora.add_argument("--output", required=True, metavar="DIR", help="folder of the adapter and the voices")
    lora.add_argument("--vector", action="store_true", help="fit the voices' vectors too")
    lora.add_argument("--learning-rate", type=float, default=4e-4, metavar="X", help="its peak (default: 0.0004)")
    add_steps(lora, iters=50, batch_size=4, frames=96, text_mode="mixed")
    lora.add_argument("--rank", type=int, default=8, metavar="N", help="of the adapter (default: 8)")
    lora.add_argument(
        "--scale", type=float, default=2.0, metavar="X", help="of what it adds, as in mlx-lm (default: 2)"
    )
    lora.add_argument(
        "--keys",
        nargs="+",
        default=["self_attn.q_proj", "self_attn.v_proj"],
        metavar="K",
        help="layers that are adapted (default: self_attn.q_proj self_attn.v_proj)",
    )
    lora.add_argument(
        "--patience",
        type=int,
        default=4,
        metavar="N",
        help="evaluations without better speech that end it (default: 4)",
    )
    lora.add_argument("--overwrite", action="store_true", help="replace an adapter at --output")
    return options


def add_data(way: argparse.ArgumentParser) -> None:
    cli.add_model(way, dtype=True)
    way.add_argument(
        "--data",
        required=True,
        metavar="D",
        help="recordings and their texts: a folder of train.jsonl (and valid.jsonl, test.jsonl), of metadata.csv, or "
        "of recordings with a .txt beside each; or a .jsonl or metadata.csv",
    )


def add_steps(way: argparse.ArgumentParser, iters: int, batch_size: int, frames: int, text_mode: str) -> None:
    """The options of training, with their defaults."""
    add = way.add_argument
    add("--iters", type=int, default=iters, metavar="N", help=f"steps (default: {iters})")
    add("--batch-size", type=int, default=batch_size, metavar="N", help=f"clips a step (default: {batch_size})")
    add("--anchor", type=float, default=0.25, metavar="X", help="cost of leaving the x-vector (0.25)")
    add("--val-batches", type=int, default=25, metavar="N", help="held-out batches, -1: all (25)")
    add("--steps-per-eval", type=int, default=10, metavar="N", help="steps between them (default: 10)")
    add("--save-every", type=int, default=10, metavar="N", help="steps between the states for --resume (10)")
    add("--resume", action="store_true", help="go on where the same command was stopped")
    add("--grad-checkpoint", action="store_true", help="less memory, a third more time")
    add(
        "--predictor-frames",
        type=int,
        default=frames,
        metavar="N",
        help=f"frames a step for the code predictor, 0: all ({frames})",
    )
    ways = "streaming or full" if text_mode == "streaming" else "mixed, streaming or full"
    add("--text-mode", default=text_mode, metavar="M", help=f"{ways}, as it will be spoken (default: {text_mode})")
    add("--skip", action="store_true", help="leave out the clips that cannot be used")
    add("--seed", type=int, default=0, metavar="N", help="0 to 4294967295 (default: 0)")
    add_rights(way)
    cli.add_json(way)


def main(arguments: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(arguments)
    cli.run(lora if options.way == "lora" else vector, options)


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
    from .tuning.vector import NEW, OLD, VectorFit, check_model

    tts = Qwen3TTS.from_pretrained(options.model, options.dtype)
    check_model(tts)
    takes, left_out = listen(data, tts, options)
    tuning = VectorFit(tts, takes, chosen)
    doubts = doubts_of(tuning.losses())
    for doubt in doubts:
        cli.note(f"warning: {doubt}")

    def keep_best() -> str:
        write(tuning, tuning.best, NEW if tuning.fit.best_step > 0 else OLD, output, rights)
        return f"the best so far, of step {tuning.fit.best_step}, is kept unheard"

    run(tuning, output, options, keep_best)
    with cli.bar("speaking", "step", form="{desc}: {n} steps [{elapsed}]") as advance:
        verdict = tuning.verdict(lambda _: advance(1))
    write(tuning, verdict.vector, verdict.kept, output, rights)
    from .tuning import unfinished

    unfinished.forget(folder_of(output))
    report(tuning, verdict, output, doubts, left_out, options)


def listen(data: Data, tts: Any, options: argparse.Namespace, several: bool = False) -> tuple[Takes, dict[str, str]]:
    """The clips, read, split, encoded and embedded; and those left out. several: they may name several speakers."""
    from .tuning import doubts
    from .tuning.data import held_out, held_out_each
    from .tuning.takes import Codes, listen, usable

    with cli.bar("reading", "clip", total=len(data.clips)) as advance:
        data, wrong = usable(data, options.skip, advance)
    for problem in wrong.values():
        cli.note(f"left out: {problem}")
    data = held_out_each(data, options.seed) if several else held_out(data, options.seed)
    for name in dict.fromkeys(clip.speaker for clip in data.clips) if several else [None]:
        own = [clip for clip in data.clips if clip.speaker == name or not several]
        for doubt in doubts.speakers(own, tts.speaker_encoder, tts.folder.folder):
            cli.note(f"warning: {f'{name}: ' if name else ''}{doubt}")
    codes = Codes(tts.codec)
    with cli.bar("encoding", "clip", total=len(data.clips)) as advance:
        takes = listen(data, codes, tts.speaker_encoder.embed, advance)
    seconds = sum(take.seconds for take in takes.all)
    kept = f"{len(takes.valid)} held out" + (f", {len(takes.test)} to be spoken" if takes.test else "")
    cli.note(f"{len(takes.all)} clips, {seconds:.0f} s: {len(takes.train)} to learn from, {kept}")
    return takes, wrong


def doubts_of(losses: Sequence[tuple[Take, float]]) -> list[str]:
    """What may be wrong with clips of one speaker. losses: of each."""
    from .tuning import doubts

    takes = [take for take, _ in losses]
    return [*doubts.outliers(takes), *doubts.transcripts(takes, [loss for _, loss in losses])]


def run(tuning: VectorFit | LoraFit, output: Path, options: argparse.Namespace, keep_best: Callable[[], str]) -> None:
    """Make the steps, with curves and what --resume needs beside the output. keep_best: called on Ctrl-C, writes the
    best so far and says so."""
    from .tuning import unfinished
    from .tuning.curves import write_csv, write_svg

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
        kept, said = keep_best(), "--resume goes on" if not complained else "it cannot go on"
        cli.note(f"interrupted at step {fit.step}: {kept}; {said}")
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


def lines_of(figures: Mapping[str, Figures]) -> list[str]:
    """The figures side by side."""

    def row(name: str, show: Callable[[Figures], str]) -> str:
        return f"{name:34}" + "".join(f"{show(one):>10}" for one in figures.values())

    def pitch(figures: Figures) -> str:
        return "–" if figures.pitch is None else f"{figures.pitch:+.2f}"

    def clarity(figures: Figures) -> str:
        return "–" if figures.clarity is None else f"{figures.clarity:.2f}"

    return [
        " " * 34 + "".join(f"{name:>10}" for name in figures),
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
        print("\n".join(lines_of(verdict.figures)))
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


# Adapters


def lora_options_of(options: argparse.Namespace) -> LoraOptions:
    from .tuning.lora import LoraOptions

    names = ("iters", "learning_rate", "batch_size", "rank", "scale", "vector", "anchor", "steps_per_eval")
    names += ("val_batches", "patience", "seed", "grad_checkpoint")
    return LoraOptions(
        **{name: getattr(options, name) for name in names},
        keys=tuple(options.keys),
        layout=options.text_mode,
        language=options.language or "auto",
        sample=options.predictor_frames,
    )


def lora(options: argparse.Namespace) -> None:
    from .checkpoint.adapters import TENSORS
    from .checks import whole
    from .files.output import check_folder, check_not_read
    from .tuning.data import read_data

    output, rights, chosen = Path(options.output), rights_of(options), lora_options_of(options)
    whole(options.save_every, "save_every", 1)
    check_folder(output, "output")
    check_not_read(output, options.data)
    check_folder(folder_of(output), "folder")
    if (output / TENSORS).exists() and not (options.overwrite or options.resume):
        raise OutputError(f"output {output} has an adapter; replace it with --overwrite or name another folder")
    data = read_data(options.data)
    from .synthesis.tts import Qwen3TTS
    from .tuning import unfinished
    from .tuning.lora import LoraFit, check_speakers, speaker
    from .tuning.vector import check_model

    check_speakers(data)
    tts = Qwen3TTS.from_pretrained(options.model, options.dtype)
    check_model(tts)
    takes, left_out = listen(data, tts, options, several=True)
    tuning = LoraFit(tts, takes, chosen)
    losses = tuning.losses()
    doubts = [
        f"{name}: {doubt}" if len(tuning.speakers) > 1 else doubt
        for name in tuning.speakers
        for doubt in doubts_of([pair for pair in losses if speaker(pair[0]) == name])
    ]
    for doubt in doubts:
        cli.note(f"warning: {doubt}")

    def keep_best() -> str:
        if not tuning.fit.best_step:
            return "no step has spoken better so far"
        save(tuning, output, rights)
        return f"what spoke best so far, of step {tuning.fit.best_step}, is kept"

    run(tuning, output, options, keep_best)
    written = save(tuning, output, rights)
    unfinished.forget(folder_of(output))
    report_lora(tuning, written, output, doubts, left_out, options)


def save(tuning: LoraFit, output: Path, rights: dict[str, str]) -> list[Path]:
    """Write the adapter that speaks best, where one does, and the voices. Returns the voices' files."""
    from .checkpoint.adapters import CONFIG, TENSORS

    output.mkdir(exist_ok=True)
    adapter, _ = tuning.best
    if adapter is not None:
        adapter.save(output)
    else:  # what is replaced, whose voices these are not
        for name in (TENSORS, CONFIG):
            (output / name).unlink(missing_ok=True)
    written = []
    for name, voice in tuning.voices(**rights).items():
        voice.save(output / f"{name}.safetensors")
        written.append(output / f"{name}.safetensors")
    return written


def report_lora(
    tuning: LoraFit,
    written: list[Path],
    output: Path,
    doubts: list[str],
    left_out: dict[str, str],
    options: argparse.Namespace,
) -> None:
    fit = tuning.fit
    last, best = max(fit.heard), fit.best_step
    shown = {"x-vector": 0} | ({f"step {best}": best} if best else {}) | ({f"step {last}": last} if last else {})
    if not options.json:
        print("\n".join(lines_of({name: fit.heard[step] for name, step in shown.items()})))
    if fit.heard[0].pitch is None:
        cli.note("pitch could not be measured: there is none, or librosa is missing (the extra `voices` brings it)")
    if fit.stalled and fit.step < fit.settings.iters:
        cli.note(f"stopped at step {fit.step}, as {fit.patience} evaluations in a row gave nothing better")
    reasons = {step: fit.against(step) for step in fit.heard if step}
    if last and last != best and reasons[last]:
        cli.note(f"step {last} is not better: {listed(reasons[last], 4)}")
    voices = listed([path.name for path in written], 5)
    if best:
        cli.note(f"the adapter of step {best}, which speaks best, is written to {output}, with {voices}")
    else:
        cli.note(f"no step speaks better than the x-vector: {output} has {voices} alone")
    cli.note(f"curves: {folder_of(output) / 'curves.svg'}")
    if options.json:
        told = {"output": str(output), "kept": "adapter" if best else "x-vector", "voices": [str(p) for p in written]}
        steps = {"steps": fit.step, "best_step": best, "burst": fit.burst, "speakers": tuning.speakers}
        heard = [
            {"step": step, **figures.as_dict(), "reasons": reasons.get(step, [])} for step, figures in fit.heard.items()
        ]
        clips = {"clips": len(tuning.takes.all), "left_out": list(left_out.values()), "doubts": doubts}
        cli.print_json({**told, **steps, "heard": heard, **clips})


if __name__ == "__main__":
    main()
