"""Subtitles as a script: each cue a line with the time in which it is to be spoken."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from .. import checks
from ..errors import InvalidValue, naming
from .plain import SPEAKER, joined, looks_like_name
from .script import Line, Script
from .subtitles import Entry, check_subtitles, read_file, read_subtitles
from .tags import TAGS, read_tags

MOST = 20_000  # cues, of a day; the manifest is written after each
ROLLING = 0.2  # seconds between two cues that show the same line
NAMELESS = ("", "default", "ntp")  # styles and names that mean nobody
SOUND = re.compile(rf"(?<!\\)\[(?!\s*(?:{'|'.join(TAGS)})\s*:)[^\[\]]*(?<!\\)\]", re.IGNORECASE)
ASIDE = re.compile(r"(?:\([^()]*\)\s*)+")
NOTES = re.compile(r"[♪♫]")
DASH = re.compile(r"[-–—](?:\s+|(?![\d\s-]))")  # before what one of two says


@dataclass(frozen=True)
class Cue(Line):
    """What is said in a time. number: of the cue in its file, from 1, shared by those in which two speak in turn;
    start, end: in seconds."""

    start: float = 0.0
    end: float = 0.0
    unit: ClassVar[str] = "cue"


@dataclass(frozen=True)
class Cues(Script):
    """Cues by the time at which they begin. doubts: (cue's number, what is not spoken or looks wrong); end: when the
    last one ends, in seconds, be it spoken or not."""

    lines: tuple[Cue, ...]  # pyright: ignore[reportIncompatibleVariableOverride]  (both are frozen)
    end: float = 0.0

    @classmethod
    def parse(cls, file: str | Path, names: Collection[str] = (), encoding: str | None = None) -> Cues:
        """Read a .srt, .vtt, .ass or .ssa file. names: those of the cast and of the library.

        encoding: of a file that is neither UTF-8 nor begins with a mark of UTF-16. InvalidValue where the file cannot
        be read or a time cannot be; the message names the line or the cue.
        """
        path = checks.path(file, "file")
        kind = check_subtitles(path, "file")
        return cls.parse_text(read_file(path, encoding), kind, names, f"subtitles {path}")

    @classmethod
    def parse_text(
        cls, text: str, kind: str = "srt", names: Collection[str] = (), title: str = "the subtitles"
    ) -> Cues:
        """The same from a string. kind: "srt", "vtt" or "ass"; title: what messages call it."""
        entries = read_subtitles(text, checks.word(kind, "kind", ("srt", "vtt", "ass")), title)
        if len(entries) > MOST:
            message = f"{title}: {len(entries)} cues; at most {MOST} are spoken at once: cut the file in parts"
            raise InvalidValue(message, param="file")
        known = {name.casefold() for name in names}
        cues: list[Cue] = []
        doubts: list[tuple[int, str]] = []
        seen: dict[tuple[object, ...], int] = {}
        styles: dict[str, int] = {}
        for number, entry in enumerate(entries, 1):
            said = (entry.start, entry.end, entry.said)
            if any(text for _, text in entry.said) and seen.setdefault(said, number) != number:
                doubts.append((number, f"repeats cue {seen[said]} at the same time and is spoken once"))
                continue
            cues += _read_cue(number, entry, known, doubts)
            if number > 1 and _rolls(entries[number - 2], entry):
                doubts.append((number, f"begins with the line that cue {number - 1} ends with; it is spoken twice"))
            if number > 1 and entry.start < entries[number - 2].start:
                doubts.append((number, f"begins before cue {number - 1}; each is spoken at its time"))
            name, text = entry.said[0]
            if entry.style and text and not name and entry.style.casefold() not in (*known, *NAMELESS):
                styles.setdefault(entry.style, number)
        doubts += [(number, f"its style {style!r} is nobody in the cast") for style, number in styles.items()]
        if not cues:
            raise InvalidValue(f"{title}: nothing to speak", param="file")
        end = max(entry.end for entry in entries)
        return cls(tuple(sorted(cues, key=lambda cue: (cue.start, cue.number))), tuple(doubts), end)

    def spoken_by(self, who: Callable[[Cue], str]) -> Cues:
        """The same cues with other names, by a function from a cue to its name."""
        return replace(self, lines=tuple(replace(cue, name=who(cue)) for cue in self.lines))

    def limits(self) -> dict[int, float | None]:
        """{number: until when, in seconds, a cue may be spoken}, None for ever.

        That is up to the first cue that begins once it is over, or up to the next one of the same speaker.
        """
        first = {cue.number: cue for cue in self.lines}
        starts = [cue.start for cue in first.values()]
        speakers: dict[int, set[str | None]] = {}
        for cue in self.lines:
            speakers.setdefault(cue.number, set()).add(cue.name and cue.name.casefold())
        found: dict[int, float | None] = {}
        own: dict[str | None, float] = {}  # when each speaks next
        for place, cue in reversed(list(enumerate(first.values()))):
            following = max(bisect.bisect_left(starts, cue.end), place + 1)
            times = [own[name] for name in speakers[cue.number] if name in own] + starts[following : following + 1]
            found[cue.number] = min(times, default=None)
            own |= dict.fromkeys(speakers[cue.number], cue.start)
        return found

    def collisions(self) -> list[tuple[int, str]]:
        """(number, doubt) of cues that begin before the same speaker's last one is over."""
        found, over = [], {}
        for cue in self.lines:
            name = cue.name and cue.name.casefold()
            end, number = over.get(name, (0.0, cue.number))
            if cue.start < end and number != cue.number:
                found.append((cue.number, f"begins before cue {number} of the same speaker ends"))
            over[name] = max((end, number), (cue.end, cue.number))
        return found


def _read_cue(number: int, entry: Entry, known: set[str], doubts: list[tuple[int, str]]) -> list[Cue]:
    """The Cues of an Entry: one for everybody who is named in it."""
    doubts += [(number, doubt) for doubt in entry.doubts]
    if entry.end < entry.start:
        message = f"cue {number} ends at {entry.end:.3f} s, before it begins at {entry.start:.3f} s"
        raise InvalidValue(message, param="file")
    if entry.end == entry.start:
        doubts.append((number, "has no length; it has the time up to the next cue"))
    style = entry.style if entry.style and entry.style.casefold() in known else None
    spoken: list[tuple[str | None, str]] = []
    dashes = 0
    for named, text in entry.said:
        named = None if named is None or named.casefold() in NAMELESS else named
        now: tuple[str | None, str] = (named or style, "")
        for raw in _audible(number, text, doubts).split("\n"):
            dash = DASH.match(raw.strip())
            dashes += dash is not None
            line = raw.strip()[dash.end() if dash else 0 :]
            found = None if named else SPEAKER.fullmatch(line)
            if found and (found[1].strip().casefold() in known or looks_like_name(found[1].strip(), found[2])):
                spoken.append(now)
                now = (found[1].strip(), found[2])
            elif line:
                now = (now[0], joined(now[1], line) if now[1] else line)
        spoken.append(now)
    spoken = [part for part in spoken if any(map(str.isalnum, part[1]))]
    if not spoken and not entry.doubts and not any(doubt[0] == number for doubt in doubts):
        doubts.append((number, "says nothing"))
    if dashes > 1 and len(spoken) == 1:
        doubts.append((number, "has lines of two speakers without their names; one speaks both"))
    return [cue for name, text in spoken if (cue := _tagged(number, name, text, entry, doubts)).spans]


def _rolls(before: Entry, entry: Entry) -> bool:
    """Whether a cue goes on showing a line of the one before, as captions do that are made while somebody speaks."""
    last, first = before.said[-1][1].strip().split("\n")[-1], entry.said[0][1].strip().split("\n")[0]
    return " " in first and first == last and entry.start <= before.end + ROLLING


def _audible(number: int, text: str, doubts: list[tuple[int, str]]) -> str:
    """A cue's text without descriptions of sounds: [door slams], and (laughs) where there is nothing else."""
    for found in SOUND.findall(text):
        doubts.append((number, f"{found[:40]} is not spoken; \\[ is a bracket that is"))
    text = NOTES.sub("", SOUND.sub("", text))
    if ASIDE.fullmatch(text.strip()) and any(map(str.isalnum, text)):
        doubts.append((number, f"{text.strip()[:40]} is not spoken: it stands alone in brackets"))
        return ""
    return text


def _tagged(number: int, name: str | None, text: str, entry: Entry, doubts: list[tuple[int, str]]) -> Cue:
    with naming(f"cue {number}"):
        tagged = read_tags(text)
    if tagged.pause is not None or any(span.pause is not None for span in tagged.spans[:1]):
        doubts.append((number, "a pause before or behind what is said is left out: the time is fixed"))
    return Cue(number, name, tuple(tagged.spans), start=entry.start, end=entry.end)
