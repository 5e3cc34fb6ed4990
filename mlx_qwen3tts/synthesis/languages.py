"""Languages by the names that models have for them and by codes, such as `en`, `zh-CN` or `pt_BR`."""

import re
from collections.abc import Sequence

from ..errors import InvalidValue

AUTO = "auto"
# ISO 639-1, and the codes of three letters (ISO 639-2 and 639-3) that people and programs use for the same.
CODES = {
    "arabic": ("ar", "ara"),
    "chinese": ("zh", "zho", "chi", "cmn"),
    "dutch": ("nl", "nld", "dut"),
    "english": ("en", "eng"),
    "french": ("fr", "fra", "fre"),
    "german": ("de", "deu", "ger"),
    "hindi": ("hi", "hin"),
    "indonesian": ("id", "ind"),
    "italian": ("it", "ita"),
    "japanese": ("ja", "jpn"),
    "korean": ("ko", "kor"),
    "polish": ("pl", "pol"),
    "portuguese": ("pt", "por"),
    "russian": ("ru", "rus"),
    "spanish": ("es", "spa"),
    "thai": ("th", "tha"),
    "turkish": ("tr", "tur"),
    "ukrainian": ("uk", "ukr"),
    "vietnamese": ("vi", "vie"),
}
NAMES = {code: name for name, codes in CODES.items() for code in codes}
# A code with what may follow it: script, region and variant (BCP 47), none of which a model knows of.
TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*")


def language_name(language: str | None, known: Sequence[str]) -> str:
    """Which of the `known` names (lower case) is meant; nothing means auto. InvalidValue where it is none of them."""
    asked = (language or AUTO).strip().lower() or AUTO
    if asked in known:
        return asked
    tag = TAG.fullmatch(asked)
    name = NAMES.get(tag[1], "") if tag else ""
    if name in known:
        return name
    raise InvalidValue(f"language {language!r} is not one of {', '.join(known)}", param="language")


def language_code(language: str | None) -> str | None:
    """The ISO 639-1 code of a language by name or code; None where it is not one that is listed here."""
    asked = (language or AUTO).strip().lower()
    tag = TAG.fullmatch(asked)
    name = asked if asked in CODES else NAMES.get(tag[1], "") if tag else ""
    return CODES[name][0] if name else None
