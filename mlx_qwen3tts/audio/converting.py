"""Recordings that libsndfile cannot read (m4a, mp4, aac, webm, wma, …), converted by a program that can.

What a file is, its first bytes say, whatever its name. `afconvert` is on every Mac; `ffmpeg` reads more and is
installed by many people. Neither is fetched or required: without one, the error has the command to run elsewhere.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import AudioError
from .tags import ID3_HEAD, id3_size

HEAD = 16  # bytes that are enough to tell what a file is
BOTH = ("afconvert", "ffmpeg")  # in the order in which they are tried
# A converter's arguments; it makes a WAV of float32 samples at the rate the recording has.
COMMANDS = {
    "afconvert": ("afconvert", "-f", "WAVE", "-d", "LEF32", "{input}", "{output}"),
    "ffmpeg": (
        *("ffmpeg", "-nostdin", "-v", "error", "-y", "-protocol_whitelist", "file", "-i", "{input}"),
        *("-map", "0:a:0", "-c:a", "pcm_f32le", "-rf64", "auto", "-f", "wav", "{output}"),
    ),
}


def container(head: bytes) -> tuple[str, tuple[str, ...]] | None:
    """(what a file is, the converters that read it) by its first bytes, or None where no converter is asked."""
    if head[4:8] == b"ftyp":
        return "MPEG-4 sound (m4a, mp4)", BOTH
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # an ADTS frame: layer 0, which MP3 never has
        return "AAC", BOTH
    if head[:4] == b"caff":
        return "a Core Audio file (caf)", BOTH
    if head[:5] == b"#!AMR":
        return "AMR", BOTH
    if head[:4] == b"\x1aE\xdf\xa3":
        return "WebM or Matroska", ("ffmpeg",)
    if head[:8] == b"0&\xb2u\x8ef\xcf\x11":
        return "Windows Media (wma)", ("ffmpeg",)
    return None


@contextmanager
def converted(path: str | Path, name: str) -> Iterator[Path | None]:
    """A WAV of what a file holds, there until the block ends, or None where a converter is not what it needs.

    name: what messages call the recording. AudioError where no converter is installed, or none can read the file.
    """
    with open(path, "rb") as file:
        file.seek(id3_size(file.read(ID3_HEAD)))  # which aac may have in front, as mp3 has
        found = container(file.read(HEAD))
    if found is None:
        yield None
        return
    kind, programs = found
    installed = [program for program in programs if shutil.which(program)]
    if not installed:
        raise AudioError(
            f"{name} is {kind}, which needs {' or '.join(programs)} to be read; install ffmpeg, or convert it "
            f"elsewhere: ffmpeg -i {shlex.quote(str(path))} {shlex.quote(f'{Path(path).stem}.wav')}"
        )
    with tempfile.TemporaryDirectory(prefix="mlx-qwen3tts-") as folder:
        output, problems = Path(folder) / "converted.wav", []
        for program in installed:
            places = {"input": os.path.abspath(path), "output": str(output)}
            command = [part.format(**places) for part in COMMANDS[program]]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
            if done.returncode == 0 and output.is_file():
                yield output
                return
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            problems.append(f"{program}: {said[-1].strip()}")
        raise AudioError(f"{name} is {kind} and could not be converted: {'; '.join(problems)}")
