"""Numbers, dates, times and sums of money as they are said and, less often, as they are written in figures."""

ONES = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
""".split()  # noqa: SIM905
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
MONTHS = """
    January February March April May June July August September October November December
""".split()  # noqa: SIM905
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905
UNITS = "metres miles hours minutes seconds pounds people books apples degrees percent frames voices".split()  # noqa: SIM905
FIGURES = 0.2  # how often a number is written in figures


def cardinal(number):
    """A whole number from 0 to 999,999,999 in words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        ten, one = divmod(number, 10)
        return TENS[ten - 2] + (f"-{ONES[one]}" if one else "")
    for size, name in ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred")):
        if number >= size:
            many, rest = divmod(number, size)
            return f"{cardinal(many)} {name}" + (f" {cardinal(rest)}" if rest else "")
    raise AssertionError(number)


def ordinal(number):
    """first, second … in words."""
    head, dash, last = cardinal(number).rpartition("-")
    if not dash:
        head, dash, last = cardinal(number).rpartition(" ")
    usual = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return head + dash + ORDINALS.get(last, usual)


def year(number):
    """A year from 1100 to 2099 as it is said."""
    first, last = divmod(number, 100)
    if number // 10 == 200:
        return cardinal(number)
    return f"{cardinal(first)} " + ("hundred" if not last else f"oh {ONES[last]}" if last < 10 else cardinal(last))


def number_phrase(draw):
    """A phrase with a number in it, by a `random.Random`."""
    size = draw.choice((10, 100, 100, 1_000, 10_000, 1_000_000))
    number = draw.randrange(size)
    said = str(number) if draw.random() < FIGURES else cardinal(number)
    kind = draw.randrange(8)
    if kind == 0:
        return f"{said} {draw.choice(UNITS)}."
    if kind == 1:
        return f"{draw.choice(DAYS)}, {draw.choice(MONTHS)} {ordinal(draw.randint(1, 31))}."
    if kind == 2:
        return f"In {draw.choice(MONTHS)} {year(draw.randint(1100, 2099))} it was {said}."
    if kind == 3:
        hour, minute = draw.randint(1, 12), draw.randint(0, 59)
        rest = "o'clock" if not minute else f"oh {ONES[minute]}" if minute < 10 else cardinal(minute)
        return f"It is {ONES[hour]} {rest}{draw.choice((' in the morning', ' at night', ''))}."
    if kind == 4:
        return f"The {ordinal(draw.randint(1, 99))} of {said} is {draw.choice(('here', 'ready', 'mine', 'lost'))}."
    if kind == 5:
        return f"It costs {said} dollars and {cardinal(draw.randint(1, 99))} cents."
    if kind == 6:
        digits = " ".join(ONES[draw.randrange(10)] for _ in range(draw.randint(3, 7)))
        return f"{draw.choice(('Call', 'Dial', 'My number is'))} {digits}."
    return f"{cardinal(draw.randrange(100))} point {ONES[draw.randrange(10)]} {draw.choice(UNITS)}, not {said}."
