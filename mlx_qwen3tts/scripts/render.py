"""A script spoken: piece by piece into the manifest, and from there on one timeline into a file or a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..audio.level import BOOK_LEVEL, HIGHEST, gain, together
from ..audio.long import Chapter, check_long, write_long
from ..audio.reading import native
from ..errors import InvalidValue
from ..files.output import check_folder, check_not_read, check_writable
from ..provenance.origin import Origin
from ..provenance.seal import Seal
from ..synthesis.normalizing import in_words
from ..synthesis.request import Request, Sampling, check_seed
from ..synthesis.resuming import identities
from ..voices.voice import Voice
from .cast import Cast
from .cost import Stopwatch
from .manifest import Manifest, guard_checks
from .script import Script
from .timeline import Piece, lay_out

if TYPE_CHECKING:
    from ..cluster.remote import Speakers
    from ..synthesis.speech import Speech
    from ..synthesis.tts import Qwen3TTS

BATCH = 8
SELECTION = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


@dataclass
class Rendered:
    """What came of a rendering. output: the file or folder, None where pieces are missing; seconds: of the timeline;
    spoken, kept, missing: how many pieces; cut: numbers of lines that reached the limit of tokens; failed: numbers of
    lines that failed the guard, and the check."""

    output: Path | None
    seconds: float
    spoken: int
    kept: int
    missing: int
    cut: list[int]
    chapters: list[tuple[str, float]] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)


def selected(text: str, script: Script) -> set[int]:
    """Numbers of lines from a selection such as "3,7-9"; InvalidValue where nothing has one of them."""
    numbers: set[int] = set()
    known, units = {line.number for line in script.lines}, f"{script.lines[0].unit}s"
    for part in text.split(","):
        found = SELECTION.fullmatch(part)
        if not found:
            raise InvalidValue(f"{units} {text!r} is not a selection such as 3,7-9", param="lines")
        first, last = int(found[1]), int(found[2] or found[1])
        chosen = {number for number in known if first <= number <= last}
        if not chosen:
            message = f"{units} {part.strip()}: nothing is spoken there; there are {min(known)} to {max(known)}"
            raise InvalidValue(message, param="lines")
        numbers |= chosen
    return numbers


def is_folder(output: Path) -> bool:
    """Whether an output is a folder of lines rather than a file."""
    return output.is_dir() or not output.suffix


def check_output(output: str | Path, *inputs: str | Path | None) -> Path:
    """The output as a path that can be written; an error otherwise. inputs: files that it must not replace."""
    path = checks.path(output, "output")
    if is_folder(path):
        check_folder(path, "--output")
    else:
        check_long(path)
        check_writable(path)
        check_not_read(path, *inputs)
    return path


@dataclass(frozen=True)
class Finish:
    """How the sound of pieces becomes files: with the mark and the signature of a seal, and with tags that say whose
    voices are heard. model: its title; requests: of all pieces; seed: of the script."""

    seal: Seal
    model: str
    requests: Sequence[Request]
    seed: int

    def write(
        self,
        path: Path,
        blocks: Iterable[np.ndarray],
        rate: int,
        length: int,
        numbers: Iterable[int],
        chapters: Sequence[Chapter] = (),
    ) -> None:
        """As `write_long`, of the pieces of these numbers."""
        heard = [self.requests[number] for number in numbers]
        voices = [(one.voice if isinstance(one.voice, Voice) else None, one.instruct) for one in heard]
        text = " ".join(str(one.text) for one in heard) if self.seal.text else None
        origin = Origin.of(self.model, voices, self.seed, text)
        marked = self.seal.marking(rate).blocks(blocks)
        write_long(path, marked, rate, length, chapters, self.seal.tags(origin), self.seal.signing_file(origin))


class Timeline:
    """A script with its cast, to be spoken.

    normalize: numbers and dates become words first (extra "wetext").
    seed: of all draws; language, sampling: where the cast does not say; level: LUFS of each voice, None leaves all as
    they are; guard: whether what has gone wrong is spoken again with other seeds, and marked where that does not help.
    """

    def __init__(
        self,
        script: Script,
        cast: Cast,
        *,
        seed: int = 0,
        language: str = "auto",
        normalize: bool = False,
        sampling: Sampling | None = None,
        level: float | None = BOOK_LEVEL,
        guard: bool = True,
    ) -> None:
        self.normalize = checks.flag(normalize, "normalize")
        self.script, self.cast, self.seed, self.language = script, cast, check_seed(seed), language
        self.sampling = Sampling() if sampling is None else sampling
        self.level = None if level is None else checks.number(level, "level", -60, 0)
        self.guard = checks.flag(guard, "guard")
        cast.check(script)

    def render(
        self,
        tts: Qwen3TTS | Speakers,
        output: str | Path,
        *,
        model: str = "",
        lines: str | None = None,
        again: bool = False,
        batch_size: int = BATCH,
        done: Callable[[int, int], object] | None = None,
        seal: Seal | None = None,
    ) -> Rendered:
        """Speak what is not spoken yet, then write the output.

        output: .wav .flac .mp3 .ogg .m4b, or a folder with a WAV for each line. model: what `tts` was loaded from, for
        the manifest: with another one everything is spoken anew. lines: a selection such as "3,7-9", nothing else is
        spoken; again: those lines are varied. done: called with how many pieces are spoken, and of how many. seal: what
        is put on the output besides its tags. What was spoken before Ctrl-C or a kill is kept, and the next call goes
        on.
        """
        path, size = check_output(output), checks.whole(batch_size, "batch_size", 1)
        if again and lines is None:
            raise InvalidValue("again varies single lines: give lines too", param="again")
        chosen = None if lines is None else selected(lines, self.script)
        manifest = Manifest(path, model, tts.sample_rate)
        with manifest.held():
            if again and chosen is not None and manifest.again != lines:
                for piece in self._pieces(manifest):
                    if piece.line in chosen:
                        manifest.takes[piece.key] = piece.take + 1
                manifest.again = lines
            pieces = self._pieces(manifest)
            requests = [piece.request(self.cast, self.language, self.sampling, self.guard) for piece in pieces]
            words = [word[:32] for word in identities(tts, requests, model)]
            entries = [_entry(piece, word, model) for piece, word in zip(pieces, words, strict=True)]
            manifest.arrange(entries)
            manifest.save()
            there = [manifest.has(word) for word in words]
            todo = [i for i, piece in enumerate(pieces) if not there[i] and (chosen is None or piece.line in chosen)]
            spoken, watch = 0, Stopwatch(manifest.folder, model)

            def heard(number: int, speech: Speech) -> None:
                nonlocal spoken
                guarded = guard_checks(speech.attempts, speech.failed)
                tags = None if speech.origin is None else speech.origin.tags()
                manifest.add(entries[number], np.array(speech.audio), speech.finish_reason, guarded, tags)
                spoken += 1
                watch.count(len(speech.audio) / tts.sample_rate)
                if done:
                    done(spoken, len(todo))

            try:
                tts.generate_each((requests[i] for i in todo), heard, batch_size=size, numbers=todo)
            finally:
                watch.keep()
            missing = len(pieces) - sum(there) - spoken
            if again:
                manifest.again = None
                manifest.save()
            found = [manifest.pieces[word] for word in words if word in manifest.pieces]
            cut = sorted({entry["line"] for entry in found if entry["checks"]["finish_reason"] == "length"})
            result = Rendered(None, 0.0, spoken, sum(there), missing, cut)
            wrong = [(entry["line"], entry["checks"].get("failed")) for entry in found]
            result.failed = [(line, failed) for line, failed in wrong if failed]
            if not missing:
                finish = Finish(Seal() if seal is None else seal, tts.title, requests, self.seed)
                self._write(path, pieces, words, manifest, result, finish)
                manifest.forget()
        return result

    def _pieces(self, manifest: Manifest) -> list[Piece]:
        written = in_words if self.normalize else None
        return lay_out(self.script, self.cast, self.seed, manifest.takes, self.language, written)

    def _write(
        self,
        path: Path,
        pieces: Sequence[Piece],
        words: list[str],
        manifest: Manifest,
        result: Rendered,
        finish: Finish,
    ) -> None:
        rate, track = manifest.sample_rate, Track(pieces, words, manifest, self.level)
        if is_folder(path):
            path.mkdir(exist_ok=True)
            numbers = sorted({piece.line for piece in pieces})
            for number in numbers:
                whole = [i for i, piece in enumerate(pieces) if piece.line == number]
                blocks = track.blocks(range(whole[0], whole[-1] + 1), lead=False)
                length = track.length(whole) - track.pause(whole[0])
                finish.write(path / f"{number:04d}.wav", blocks, rate, length, whole)
        else:
            chapters = track.chapters()
            everything = range(len(pieces))
            finish.write(path, track.blocks(everything), rate, track.length(everything), everything, chapters)
            result.chapters = [(chapter.title, chapter.start / rate) for chapter in chapters]
        result.output, result.seconds = path, track.length(range(len(pieces))) / rate


def _entry(piece: Piece, word: str, model: str) -> dict[str, Any]:
    what = {"line": piece.line, "name": piece.name, "voice": piece.part.voice, "text": piece.text}
    return {**what, "seed": piece.seed, "take": piece.take, "model": model, "hash": word}


class Track:
    """The sound of spoken pieces in a row, with their pauses and at their level."""

    def __init__(self, pieces: Sequence[Piece], words: list[str], manifest: Manifest, level: float | None) -> None:
        self.pieces, self.words, self.manifest = pieces, words, manifest
        entries = self.entries = [manifest.pieces[word] for word in words]
        measured: dict[str | None, list[tuple[float, float]]] = {}
        for piece, entry in zip(pieces, entries, strict=True):
            own = measured.setdefault(piece.part.voice, [])
            if entry["checks"]["loudness"] is not None:
                own.append((entry["checks"]["loudness"], entry["samples"] / manifest.sample_rate))
        self.gains = {voice: gain(together(own), level) for voice, own in measured.items()}

    def pause(self, number: int) -> int:
        """Samples of silence in front of a piece."""
        return round(self.pieces[number].pause * self.manifest.sample_rate)

    def length(self, numbers: Sequence[int]) -> int:
        """Samples of pieces with the pauses in front of them."""
        return sum(self.pause(number) + self.entries[number]["samples"] for number in numbers)

    def chapters(self) -> list[Chapter]:
        """Where chapters begin. What precedes the first heading is a chapter without one's name."""
        made, place = [], 0
        for number, piece in enumerate(self.pieces):
            start = place + self.pause(number)
            if piece.chapter is not None:
                if not made and number:
                    made.append(Chapter("Beginning", 0))
                made.append(Chapter(piece.chapter, start if made else 0))
            place = start + self.entries[number]["samples"]
        return made

    def blocks(self, numbers: range, lead: bool = True) -> Iterator[np.ndarray]:
        """The samples of pieces, read from their files one after another. lead: with the pause before the first."""
        import soundfile

        for number in numbers:
            if lead or number != numbers[0]:
                yield np.zeros(self.pause(number), np.float32)
            if not self.entries[number]["samples"]:  # a file without any cannot be read
                yield np.zeros(0, np.float32)
                continue
            peak = self.entries[number]["checks"]["peak"]
            factor = self.gains[self.pieces[number].part.voice]
            samples, _ = soundfile.read(native(self.manifest.place(self.words[number])), dtype="float32")
            yield samples * np.float32(min(factor, HIGHEST / peak) if peak and factor != 1 else 1.0)
