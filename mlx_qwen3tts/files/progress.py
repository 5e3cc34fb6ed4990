"""What an unfinished run has made in its folder so far, so that the next one goes on from there.

A line of JSON is appended for every file that is whole. The record is removed when the run has ended, so it is there
only where there is something to resume.
"""

import json
from pathlib import Path

from .json_text import json_text

RECORD = "unfinished.jsonl"


class Progress:
    """The files of a folder that are made already. identity: a word for all that a file was made from."""

    def __init__(self, folder: str | Path, resume: bool) -> None:
        """resume: whether what an earlier run has recorded counts; else it is forgotten with the first new file."""
        self.file = Path(folder) / RECORD
        self._made: dict[str, str] = {}
        self._forget = not resume
        if self._forget or not self.file.is_file():
            return
        for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                self._made[entry["file"]] = entry["identity"]
            except (ValueError, KeyError, TypeError):  # the last line of a run that was killed may be half a line
                continue

    def has(self, name: str, identity: str) -> bool:
        """Whether a file is there and was made from the same."""
        return self._made.get(name) == identity and (self.file.parent / name).is_file()

    def add(self, name: str, identity: str) -> None:
        """Record a file that is whole."""
        if self._forget:
            self.finish()
            self._forget = False
        line = json_text({"file": name, "identity": identity})
        with open(self.file, "a", encoding="utf-8") as record:
            record.write(f"\n{line}\n")  # in front too: behind half a line it would be lost

    def finish(self) -> None:
        """Everything is made: nothing is left to resume."""
        self.file.unlink(missing_ok=True)
