"""An hour of script: real-time factor, and memory that does not grow with the length.

    python -m benchmarks.hours [--minutes 6 60] [--model miniature] [--batch-size 8] [--suffix .m4b] [--json]

Writes a book of made-up sentences in the miniature's words, a narrator and two characters, a chapter every three
minutes, and has `mlx_qwen3tts.script render` speak it: each length in a process of its own, whose memory and processor
time the system tells. Every shorter book is the beginning of the longest.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlx_qwen3tts import cli
from mlx_qwen3tts.audio.encoding import libav
from mlx_qwen3tts.checkpoint import hub

LETTERS_A_MINUTE = 680  # of the book, with its pauses and headings, as the miniature speaks it
CHAPTER = 3  # minutes
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COLOURS = ["black", "blue", "green", "orange", "purple", "red", "white", "yellow"]
THINGS = ["bird", "car", "cat", "dog", "house", "machine", "moon", "river", "tree"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
SENTENCES = (
    "The {thing} is {colour} and the {other} is big.",
    "I have {number} {colour} {thing} and a small {other}.",
    "Today is {day}, and tomorrow I see the {thing}.",
    "Can you hear the {colour} {thing} in the house?",
    "We want to sing a song, and the {thing} is happy.",
    "Hello, this is my voice, please speak to me.",
    "No, I like the {colour} {thing} and not the {other}.",
    "Good evening, world, the night is cold and the moon is white.",
    "Now say {number} and not {count}.",
)


def book(minutes, seed=0):
    """A script of about so many minutes; of a longer one it is the beginning."""
    draw, lines, letters, chapters = random.Random(seed), [], 0, 0
    while letters < minutes * LETTERS_A_MINUTE:
        if letters >= chapters * CHAPTER * LETTERS_A_MINUTE:
            lines.append(f"# {draw.choice(NUMBERS).capitalize()} {draw.choice(COLOURS)} {draw.choice(THINGS)}")
            chapters += 1
        name = draw.choice(["", "", "ANNA: ", "BEN: "])
        said = " ".join(sentence(draw) for _ in range(draw.randint(1, 3)))
        lines.append(f"{name}{said}")
        letters += len(said)
    return "\n\n".join(lines) + "\n"


def sentence(draw):
    thing, other = draw.sample(THINGS, 2)
    words = {"thing": thing, "other": other, "colour": draw.choice(COLOURS), "day": draw.choice(DAYS)}
    number, count = draw.sample(NUMBERS, 2)
    return draw.choice(SENTENCES).format(**words, number=number, count=count)


def render(folder, minutes, options):
    """{what was measured} of one length."""
    output = folder / f"book-{minutes:g}{options.suffix}"
    text, voices = folder / f"book-{minutes:g}.txt", folder / "voices.json"
    text.write_text(book(minutes), encoding="utf-8")
    shipped = hub.SHIPPED["miniature"] / "voices"
    names = {"narrator": "voice03", "ANNA": "voice10", "BEN": "voice01"}
    voices.write_text(json.dumps({name: str(shipped / f"{voice}.safetensors") for name, voice in names.items()}))
    command = [sys.executable, "-m", "mlx_qwen3tts.script", "render", str(text), "--voices", str(voices), "--json"]
    command += ["--model", options.model, "--output", str(output), "--batch-size", str(options.batch_size)]
    command += ["--dtype", options.dtype]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"rendering {minutes:g} minutes failed with status {process.returncode}")
    result = json.loads(told.splitlines()[-1])
    found = {"minutes": result["seconds"] / 60, "pieces": result["spoken"] + result["kept"], "elapsed": elapsed}
    found |= {"processor": used.ru_utime + used.ru_stime, "megabytes": used.ru_maxrss / (1 << 20 if MAC else 1 << 10)}
    found |= {"rtf": elapsed / result["seconds"], "chapters": len(result["chapters"]), "bytes": output.stat().st_size}
    if options.suffix == ".m4b":
        with libav().open(str(output)) as file:
            found |= {"chapters_in_file": len(file.chapters()), "minutes_in_file": file.duration / 60e6}
    return found


MAC = sys.platform == "darwin"  # where ru_maxrss counts bytes


def build_parser():
    options = argparse.ArgumentParser(prog="python -m benchmarks.hours", description=__doc__.split("\n")[0])
    options.add_argument("--minutes", type=float, nargs="+", default=[6, 60], metavar="M")
    options.add_argument("--model", default="miniature", metavar="M")
    options.add_argument("--dtype", default="float32", metavar="D", help="(default: float32, the fastest on a CPU)")
    options.add_argument("--batch-size", type=int, default=8, metavar="N")
    options.add_argument("--suffix", default=".m4b" if libav() else ".flac", help="of the file (default: .m4b with av)")
    options.add_argument("--folder", type=Path, help="where the books are kept (default: nowhere)")
    cli.add_json(options)
    return options


def main(arguments=None):
    options, rows = build_parser().parse_args(arguments), []
    print("minutes  pieces  chapters   elapsed  processor     RTF  peak memory")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for minutes in options.minutes:
            one = render(folder, minutes, options)
            rows.append(one)
            print(
                f"{one['minutes']:7.1f}  {one['pieces']:6}  {one['chapters']:8}  {one['elapsed']:6.0f} s  "
                f"{one['processor']:7.0f} s  {one['rtf']:6.3f}  {one['megabytes']:8.0f} MB",
                flush=True,
            )
    if options.json:
        cli.print_json(rows)


if __name__ == "__main__":
    main()
