"""What the open miniature is taught to say: sentences dealt from decks, so that everything is said once before anything
is said twice.

Prose and words come from packages of Debian, read below a root folder: `/` where they are installed, or a folder into
which they were unpacked (`apt-get download PACKAGE`, `dpkg -x PACKAGE.deb ROOT`). README.md lists them with their
licences. Names are the capitalised words of the word list; numbers, dates and times are made here, and the 103 words of
the closed miniature come in its own patterns.
"""

import gzip
import json
import random
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import language
from .numbers import number_phrase

WORDS = "usr/share/dict/american-english"
WORDNET = "usr/share/wordnet/data."
DICTIONARIES = ("usr/share/dictd/devil.dict.dz", "usr/share/dictd/jargon.dict.dz")
SHORTEST, LONGEST = 3, 110  # words of a prose sentence at least, characters of any text at most
HELD = 50  # one prose sentence in so many is held out
# Twenty texts in a row are of these kinds. Each kind has a deck of its own.
KINDS = ("prose",) * 9 + ("words",) * 3 + ("numbers",) * 2 + ("names",) * 2 + ("closed",) * 3 + ("letters",)
PLAIN = ("prose",) * 12 + ("numbers",) * 4 + ("names",) * 4  # what people have read to them: for the gates
NAMED = (
    "My name is {} {}.",
    "{} and {} are here.",
    "This is {}, and that is {}.",
    "{} asked {} for a glass of water.",
    "Have you seen {} or {} today?",
    "{} went to {} last summer.",
    "Good morning, {}, said {}.",
    "Please call {} before you write to {}!",
)
SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=[A-Z\"'])")
GOOD = re.compile(r"[A-Za-z][A-Za-z' ,;:-]*[A-Za-z]")
ASIDE = re.compile(r"\([^()]*\)|\[[^][]*\]")


def clean(text):
    """A sentence as it may be said, ending in a mark, or None: letters, blanks and `,;:'-` alone, of fair length."""
    text = ASIDE.sub("", text).translate(str.maketrans("‘’“”`", "''\"\"'")).replace('"', "").replace("--", ", ")
    text = " ".join(text.split()).replace(" ,", ",").strip(" '")
    mark = text[-1:] if text[-1:] in (".", "?", "!") else "."
    text = text.rstrip(".?!;:, ")
    words = text.split()
    if not GOOD.fullmatch(text) or len(words) < SHORTEST or len(text) >= LONGEST:
        return None
    if sum(word.isupper() and len(word) > 1 for word in words) or any(len(word) > 20 for word in words):
        return None
    return text + mark


def wordnet(root):
    """Definitions and examples of WordNet's four files, as they stand."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / (WORDNET + part)).read_text("latin-1").splitlines():
            _, bar, gloss = line.partition(" | ")
            if bar:
                yield from re.findall(r'"([^"]+)"', gloss)
                yield re.sub(r'"[^"]*"', "", gloss).partition(";")[0]


def dictionary(path):
    """The sentences of the indented or flowing paragraphs of a dictd file."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        flowing = " ".join(line.strip() for line in lines)
        flowing = re.sub(r"^[A-Z' -]+, [a-z.]+\s+", "", re.sub(r"[{}_]", "", flowing))
        yield from SENTENCE.split(flowing)


@dataclass
class Decks:
    """words and names: lists; prose: sentences taught; held: sentences that are never taught. All shuffled."""

    words: list[str]
    names: list[str]
    prose: list[str]
    held: list[str]

    @classmethod
    def read(cls, root):
        """Everything below a root folder. FileNotFoundError names the file of a package that is not there."""
        root = Path(root)
        listed = [word for word in (root / WORDS).read_text("utf-8").split() if word.isascii()]
        listed = [word for word in listed if word.replace("'", "").isalpha()]
        sentences = [*wordnet(root)] + [text for name in DICTIONARIES for text in dictionary(root / name)]
        found = dict.fromkeys(text for sentence in sentences if (text := clean(sentence)))
        return cls.of(listed, found)

    @classmethod
    def kept(cls, work, root):
        """Those in WORK/texts.json, which are read below the root and written there the first time."""
        path = Path(work) / "texts.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(asdict(cls.read(root))))
            partial.replace(path)
        return cls(**json.loads(path.read_text()))

    @classmethod
    def of(cls, words, sentences):
        """words: a word list, names with a capital; sentences: clean ones, in a fixed order."""
        names = [word for word in words if word.istitle() and "'" not in word and len(word) > 2]
        plain = [word for word in words if word.islower() and len(word) > 1 and not word.endswith("'s")]
        ordered = list(sentences)
        held, prose = ordered[::HELD], [text for n, text in enumerate(ordered) if n % HELD]
        for deck in (plain, names, prose, held):
            random.Random(len(deck)).shuffle(deck)
        return cls(plain, names, prose, held)

    def _row(self, deck, start, count):
        return [deck[(start + k) % len(deck)] for k in range(count)]

    def text(self, number, held=False, kinds=KINDS):
        """The text of a number, always the same. held: of texts that are never taught; kinds: of so many in a row."""
        turn, place = divmod(number, len(kinds))
        kind = kinds[place]
        nth = turn * kinds.count(kind) + kinds[:place].count(kind)  # of its kind
        draw = random.Random(2 * number + held)
        if kind == "prose":
            return self.prose_text(nth, draw, held)
        if kind == "words":
            return self.row_text(nth, draw, held)
        if kind == "names":
            one, other = self._row(self.names, 2 * nth + held, 2)
            return draw.choice(NAMED).format(one, other)
        if kind == "numbers":
            return number_phrase(draw)
        if kind == "letters":
            letters = " ".join(draw.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(draw.randint(2, 6)))
            return draw.choice(("{}.", "Press {}, please.", "It is spelled {}.")).format(letters)
        return language.sentence(draw)

    def prose_text(self, nth, draw, held=False):
        deck = self.held if held else self.prose
        text = deck[nth % len(deck)]
        if draw.random() < 0.7:
            text = text[0].upper() + text[1:]
        if len(text) < 30 and draw.random() < 0.4:  # two sentences in one breath
            other = deck[(nth + len(deck) // 2) % len(deck)]
            if len(text) + len(other) < LONGEST:
                text = f"{text} {other[0].upper()}{other[1:]}"
        return text if draw.random() < 0.85 else text.rstrip(".")

    def row_text(self, nth, draw, held=False):
        """Six words of the list, as no sentence has them: every word is said, however rare."""
        words = self._row(self.words, 6 * nth + 3 * held, 6)
        while len(" ".join(words)) > LONGEST - 10:
            words.pop()
        for place in range(len(words) - 1):
            if draw.random() < 0.15:
                words[place] += draw.choice((",", ",", ";", "."))
        text = " ".join(words)
        return text[0].upper() + text[1:] + draw.choice((".", ".", "?", "!", ""))


def pairs(words):
    """Counter of the letter pairs in words, a blank before and after each."""
    found = Counter()
    for word in words:
        letters = f" {word.lower()} "
        found.update(letters[k : k + 2] for k in range(len(letters) - 1))
    return found


def wanted(words, often=3):
    """Letter pairs that occur in so many words of a list or more: those that the texts must have."""
    return {pair for pair, count in pairs(words).items() if count >= often}
