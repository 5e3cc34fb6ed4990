"""What the miniature can say: a closed vocabulary and the sentences it is taught with."""

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COLOURS = ["red", "green", "blue", "yellow", "white", "black", "orange", "purple"]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
THINGS = ["dog", "cat", "bird", "house", "car", "tree", "world", "voice", "model", "song", "river", "moon"]
ADJECTIVES = ["big", "small", "tiny", "new", "warm", "cold", "happy", *COLOURS]
VERBS = ["like", "see", "have", "want", "hear"]
TIMES = ["morning", "evening", "night", "day"]
# Words for which a free order makes no sense: weak forms and the sound-alike of `two`. They come in sentences alone.
WEAK = ["a", "the", "and", "of", "to", "in", "is", "are", "am"]
OTHERS = """
    hello hi welcome goodbye good thank please yes no today tomorrow now voices my your his her name this that i
    you we it me not speak say sing blend mix higher lower slower faster demo can how machine sound
""".split()  # noqa: SIM905
WORDS = tuple(dict.fromkeys([*DIGITS, *COLOURS, *DAYS, *THINGS, *ADJECTIVES, *VERBS, *TIMES, *OTHERS, *WEAK]))
FREE = [word for word in WORDS if word not in WEAK]
PUNCTUATION = ",.?!"

PATTERNS = (
    "hello, this is my voice",
    "hello, this is my {adjective} voice",
    "hello, this is {the} {adjective} {thing}",
    "hello world",
    "hello, my name is {colour} {thing}",
    "hi, I am {the} {adjective} {thing}",
    "hi, how are you today",
    "good {time}",
    "good {time}, world",
    "good {time}, today is {day}",
    "today is {day} and tomorrow is {day}",
    "this is {the} {adjective} {thing}",
    "that is not {the} {thing}",
    "I {verb} {the} {adjective} {thing}",
    "we {verb} {digit} {adjective} {thing} and {the} {thing}",
    "you are {adjective} and {adjective}",
    "how are you",
    "thank you",
    "thank you and goodbye",
    "goodbye and good {time}",
    "welcome to {the} {adjective} {thing}",
    "welcome to the {demo}",
    "please say {digit} {digit} {digit}",
    "please say {the} name of {the} {thing}",
    "my voice is {adjective}",
    "his voice is {higher} and her voice is {higher}",
    "now my voice is {higher}",
    "my voice is {higher} now",
    "now I speak {pace}",
    "your name is {colour}",
    "can you hear my voice now",
    "can you hear {the} {thing}",
    "yes, I can hear you",
    "no, it is {the} {thing}",
    "{digit} and {digit} is {digit}",
    "I want to speak to you",
    "I want to sing {the} {adjective} song",
    "the {thing} is {colour} and the {thing} is {colour}",
    "the {colour} {thing} is in the {adjective} {thing}",
    "say hello to {the} {thing}",
    "this is a blend of two voices",
    "this is {the} blend of {digit} voices",
    "we can mix {digit} voices in {the} machine",
    "this is the sound of {the} {thing}",
    "sing {the} song of the {adjective} {thing}",
    "{digit} {colour} {thing}",
    "this is a tiny voice model",
    "I am a tiny model",
)
# Whole as they stand: everybody says them, so nobody is tried on them.
FIXED = {pattern.lower() for pattern in PATTERNS if "{" not in pattern}
FILLERS = {
    "{adjective}": ADJECTIVES,
    "{thing}": THINGS,
    "{time}": TIMES,
    "{the}": ("a", "the", "my", "your", "his", "her"),
    "{verb}": VERBS,
    "{digit}": DIGITS,
    "{colour}": COLOURS,
    "{day}": DAYS,
    "{higher}": ("higher", "lower"),
    "{pace}": ("faster", "slower"),
    "{demo}": ("demo", "machine", "world of voices"),
}


def sentence(random):
    """One sentence by a `random.Random`: a pattern, a row of digits, or words in free order."""
    kind = random.random()
    if kind < 0.45:
        text = random.choice(PATTERNS)
        for filler, choices in FILLERS.items():
            while filler in text:
                text = text.replace(filler, random.choice(choices), 1)
    elif kind < 0.55:
        text = " ".join(random.choice(DIGITS) for _ in range(random.randint(1, 6)))
    else:
        words = [random.choice(FREE) for _ in range(random.choice((1, 2, 2, 3, 3, 4, 4, 5, 5, 6)))]
        if len(words) > 3 and random.random() < 0.3:
            words[random.randrange(1, len(words) - 1)] += ","
        text = " ".join("I" if word == "i" else word for word in words)
    if random.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + random.choice(("", ".", ".", ".", ".", "?", "!"))


def plain(text):
    """A sentence without what makes no other sentence of it: capitals and the mark at its end."""
    return text.lower().strip(".?!")


def words(text):
    """The words of a text as the recogniser writes them."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def errors(meant, heard):
    """Insertions, deletions and substitutions between two lists."""
    row = list(range(len(heard) + 1))
    for i, one in enumerate(meant, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]
