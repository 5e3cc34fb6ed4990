"""Blend expressions: `anna*0.7 + ben*0.3`, `anna(2)+ben(1)`, `anna:0.7,ben:0.3`, `anna + 1.5*@gender`.

    sum     = [sign] term { ("+" | " - " | ",") term }
    term    = { number "*" } factor { "*" number } [ ":" number ] | factor "(" number ")"
    factor  = name | "@" name | "(" sum ")"
    name    = a run of letters, digits and any of  _ - . / ~ \\ # % & ' ! ?  that is not a number, or "…" in quotes

A minus needs spaces around it, as `anna-ben` is a name; a comma needs a weight on both sides. `parse` reads an
expression, `reduce` adds it up; finding the voices is lookup.py's work.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from ..errors import QwenTTSError, WrongType

PLAIN = re.compile(r"[^\s+*@()\",:]+")  # what a name may be without quotes
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
ROUNDING = 4e-12  # of the weights' sizes: a total this small is a zero that decimal fractions missed
CLOSE = 1e-6  # of the weights' sizes when equal names are added up: dividing by so small a total would blow a voice up
DEEPEST = 100  # parentheses within each other


class ExpressionError(QwenTTSError):
    """A blend expression that cannot be read, or has a name that cannot be found.

    place: the index of the character at fault; pointer: the expression with a caret under it; code: where a name is at
    fault, that of the name's own error.
    """

    code = "invalid_expression"

    def __init__(self, message: str, text: str, place: int, code: str | None = None) -> None:
        self.code = code or self.code
        self.place = place
        before = "".join("\t" if c == "\t" else " " * _width(c) for c in text[:place])
        self.pointer = f"  {text}\n  {before}^"
        super().__init__(f"blend expression: {message}", param="voice")


def _width(character: str) -> int:
    """Columns that a terminal gives a character."""
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@dataclass(frozen=True)
class Name:
    """A voice, or with `direction` a direction. place: where it stands in the text."""

    name: str
    direction: bool = False
    place: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and (self.name, self.direction) == (other.name, other.direction)

    def __hash__(self) -> int:
        return hash((self.name, self.direction))

    def __str__(self) -> str:
        plain = PLAIN.fullmatch(self.name) and not NUMBER.fullmatch(self.name) and self.name[0] not in "+-"
        quoted = self.name if plain else '"' + self.name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"@{quoted}" if self.direction else quoted


@dataclass(frozen=True)
class Sum:
    """terms: (weight, Name or Sum), in order. place: where it starts in the text."""

    terms: tuple[tuple[float, Name | Sum], ...]
    place: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __str__(self) -> str:
        shown = ""
        for weight, what in self.terms:
            negative = math.copysign(1, weight) < 0
            factor = f"({what})" if isinstance(what, Sum) else str(what)
            if shown:
                shown += " - " if negative else " + "
                weight = abs(weight)
            # In front a minus belongs to a number, as in -1*anna.
            shown += factor if weight == 1 else f"{_number(weight)}*{factor}"
        return shown


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def parse(text: str) -> Sum:
    """A Sum from an expression; ExpressionError with the place where it cannot be read. `str` of it parses to it."""
    return _Parser(text).whole()


@dataclass(frozen=True)
class _Token:
    """kind: name, number, minus, end, or one of the signs + * @ ( ) , : themselves; value: a number's, else 0."""

    kind: str
    text: str
    place: int
    value: float = 0.0


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        c = text[place]
        if c.isspace():
            place += 1
        elif c in "+*@(),:":
            yield _Token(c, c, place)
            place += 1
        elif c == '"':
            value, place_after = _quoted(text, place)
            yield _Token("name", value, place)
            place = place_after
        else:
            # A number may hold a sign after its e, which ends a name: 1e+3.
            number = NUMBER.match(text, place)
            name = PLAIN.match(text, place)
            run = name.group() if name else ""
            if number and len(number.group()) >= len(run):
                run = number.group()
                yield _Token("number", run, place, float(run))
            elif run == "-":
                yield _Token("minus", run, place)
            elif run.startswith("-"):
                raise ExpressionError("a minus needs spaces around it; or put the name in quotes", text, place)
            else:
                yield _Token("name", run, place)
            place += len(run)
    yield _Token("end", "", len(text))


def _quoted(text: str, start: int) -> tuple[str, int]:
    """(the name in quotes that starts there, the place after it)."""
    value, place = [], start + 1
    while place < len(text):
        if text[place] == '"':
            if not value:
                raise ExpressionError("an empty name", text, start)
            return "".join(value), place + 1
        if text[place] == "\\" and text[place + 1 : place + 2] in ("\\", '"'):
            place += 1
        value.append(text[place])
        place += 1
    raise ExpressionError("the quotes are not closed", text, start)


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise WrongType(f"an expression must be a string, not {text!r}", param="voice")
        self.text, self.tokens, self.at, self.depth = text, list(_tokens(text)), 0, 0
        self.bare = False  # whether the last term had no weight

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    @property
    def kind(self) -> str:
        return self.token.kind

    @property
    def place(self) -> int:
        return self.token.place

    def take(self) -> _Token:
        token = self.token
        self.at += 1
        return token

    def fail(self, message: str, place: int | None = None) -> NoReturn:
        raise ExpressionError(message, self.text, self.place if place is None else place)

    def whole(self) -> Sum:
        if self.kind == "end":
            self.fail("it is empty")
        result = self.sum()
        if self.kind == "number" and self.token.value < 0:
            self.fail("a minus needs spaces around it")
        if self.kind != "end":
            self.fail("expected + - or * here" if self.kind != ")" else "this parenthesis was never opened")
        return result

    def sum(self) -> Sum:
        start, sign = self.place, 1.0
        if self.kind in ("+", "minus"):
            sign = -1.0 if self.take().kind == "minus" else 1.0
        terms = [self.term(sign)]
        while self.kind in ("+", "minus", ","):
            sign, bare = self.take(), self.bare
            terms.append(self.term(-1.0 if sign.kind == "minus" else 1.0))
            if sign.kind == "," and (bare or self.bare):
                one, two = (what if isinstance(what, Name) else f"({what})" for _, what in terms[-2:])
                self.fail(
                    f"a comma without weights may mean two things: for a blend write {one} + {two}, or {one}:1, "
                    f"{two}:1; for two voices in turn speak each part with its own. A name with a comma needs quotes",
                    sign.place,
                )
        return Sum(tuple(terms), start)

    def term(self, weight: float) -> tuple[float, Name | Sum]:
        start, before = self.place, self.at
        while self.kind == "number":
            weight *= self.number()
            if self.kind != "*":
                self.fail("expected * between a weight and a voice")
            self.take()
        leading = self.at > before
        what = self.factor()
        after = self.at
        if self.kind == "(" and isinstance(what, Name):
            self.take()
            weight *= self.number()
            self.close()
        while self.kind == "*":
            self.take()
            if self.kind != "number":
                if self.kind == "name" and NUMBER.match(self.token.text) and "-" in self.token.text:
                    self.fail("a minus needs spaces around it")
                self.fail("a voice can be multiplied by a number only" if self.kind in ("name", "(", "@") else
                          "expected a number")  # fmt: skip
            weight *= self.number()
        if self.kind == ":":
            self.take()
            weight *= self.number()
        if not math.isfinite(weight):
            self.fail("the weight is not finite", start)
        self.bare = not leading and self.at == after
        return weight, what

    def number(self) -> float:
        if self.kind != "number":
            self.fail("expected a number")
        return self.take().value

    def close(self) -> None:
        if self.kind != ")":
            self.fail("the parenthesis is not closed" if self.kind == "end" else "expected )")
        self.take()

    def factor(self) -> Name | Sum:
        kind, place = self.kind, self.place
        if kind == "name":
            return Name(self.take().text, place=place)
        if kind == "@":
            self.take()
            if self.kind != "name":
                self.fail("expected the name of a direction after @")
            return Name(self.take().text, direction=True, place=place)
        if kind == "(":
            if self.depth == DEEPEST:
                self.fail(f"more than {DEEPEST} parentheses within each other")
            self.take()
            self.depth += 1
            result = self.sum()
            self.depth -= 1
            self.close()
            return result
        if kind == "minus":
            self.fail("a minus here needs a number: -0.5*name")
        self.fail("expected a voice, @direction or (")


@dataclass
class Form:
    """What an expression adds up to: the sum of weight × voice and strength × direction.

    voices, directions: {Name: weight}. amounts: {Name: share} of the voices that the result is a mean of, summing to
    one; empty for an offset, whose weights sum to zero.
    """

    voices: dict[Name, float]
    directions: dict[Name, float]
    amounts: dict[Name, float]


def scaled(weights: Iterable[float]) -> tuple[list[float], int]:
    """(the weights divided by 2 to the power of n, n), where the largest is then between 1 and 2: their sums can
    neither overflow nor vanish, and no digit is lost."""
    weights = list(weights)
    largest = max(map(abs, weights), default=0.0)
    power = math.frexp(largest)[1] - 1 if largest else 0
    return [math.ldexp(weight, -power) for weight in weights], power


def reduce(expression: Sum, text: str | None = None) -> Form:
    """The Form of a Sum; text: what it was parsed from, for messages.

    In every sum, parentheses or not, the weights of voices are divided by their total, so that they sum to one; where
    they sum to zero the sum is an offset. Offsets and directions are added as they are. ExpressionError for a total
    below zero, by which every sign would turn, and for numbers that grow beyond what a float can hold.
    """
    text = str(expression) if text is None else text
    points, offsets = [], []
    for weight, what in expression.terms:
        if isinstance(what, Sum):
            form = reduce(what, text)
        else:
            form = Form({}, {what: 1.0}, {}) if what.direction else Form({what: 1.0}, {}, {what: 1.0})
        if not math.isfinite(weight):  # which no text can say, but a Sum can hold
            raise ExpressionError("a weight is not finite", text, expression.place)
        (points if form.amounts else offsets).append((weight, form))
    weights, power = scaled(weight for weight, _ in points)
    points = [(weight, form) for weight, (_, form) in zip(weights, points, strict=True)]
    total, sizes = math.fsum(weights), math.fsum(map(abs, weights))
    summed = _total(points)
    left = sum(map(abs, summed.voices.values()))
    cancel = abs(total) <= max(ROUNDING * sizes, CLOSE * left)
    if total < 0 and not cancel:
        shown = _number(total * 2.0**power)
        raise ExpressionError(
            f"the weights of the voices sum to {shown}, and dividing by that would turn every sign; let them sum to "
            "more than zero, as in anna + ben - carl",
            text,
            expression.place,
        )
    whole = _total([(2.0**power if cancel else 1 / total, summed), *offsets])
    if not all(map(math.isfinite, [*whole.voices.values(), *whole.directions.values()])):
        raise ExpressionError("its weights multiply to more than a number can hold", text, expression.place)
    if not cancel:
        for weight, form in points:
            _add(whole.amounts, form.amounts, abs(weight) / sizes)
    return whole


def _total(parts: list[tuple[float, Form]]) -> Form:
    """The Form that weighted Forms add up to; `amounts` is left empty."""
    whole = Form({}, {}, {})
    for weight, form in parts:
        _add(whole.voices, form.voices, weight)
        _add(whole.directions, form.directions, weight)
    return whole


def _add(weights: dict[Name, float], more: Mapping[Name, float], factor: float) -> None:
    """Add factor × more to the weights, in place."""
    for name, weight in more.items():
        weights[name] = weights.get(name, 0.0) + factor * weight
