"""Whether a transcript can be that of a recording, by how fast it would have been spoken.

Syllables a second of 17 languages, as read by many people, average 6.6 and lie between 4 and 9 (Coupé, Oh, Dediu and
Pellegrino, "Different languages, similar encoding efficiency", 2019). Letters tell syllables well enough for that, in
languages with and without spaces; tokens do not, since a tokenizer spends several on a word of one script and one on a
phrase of another.
"""

import re

SLOWEST, FASTEST = 1.2, 13.0  # syllables a second: a third and one and a half times what people do
# Characters that are a syllable each, or nearly: ideographs, kana, Hangul.
SYLLABIC = re.compile(
    "[\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
LETTERS = 2.6  # to a syllable, in alphabets: 2.2 in Italian and Spanish, 2.9 in English and Russian, 3.1 in German
DIGITS = 1.5  # syllables of a digit: "seven" has two, and "1984" as a year has four


def syllables(text: str) -> float:
    """How many syllables a text has, roughly: within a third in the languages that the published models speak."""
    whole = len(SYLLABIC.findall(text))
    digits = sum(char.isdigit() for char in text)
    letters = sum(char.isalpha() for char in text) - whole
    return max(1.0, whole + letters / LETTERS + digits * DIGITS)


def mismatch(text: str, seconds: float, speech: float) -> str | None:
    """Why a transcript cannot be that of a recording of `seconds` in which somebody speaks for `speech`, or None."""
    count = syllables(text)
    if count > FASTEST * seconds:
        rate, what = count / seconds, "more than can be said in"
    elif count < SLOWEST * speech:
        rate, what = count / speech, "far less than is said in"
    else:
        return None
    return (
        f"the reference text is {what} the recording ({rate:.1f} syllables a second; people speak 4 to 9): give all of "
        "what it says and nothing else, or the speech degenerates"
    )
