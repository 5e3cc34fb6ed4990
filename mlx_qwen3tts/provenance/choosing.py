"""From the options of a command to the Seal that it puts on sound."""

from __future__ import annotations

import argparse

from ..audio.watermark import DEFAULT_KEY
from ..errors import InvalidValue
from .seal import Seal


def chosen(options: argparse.Namespace, *outputs: str | None) -> Seal:
    """The Seal that `cli.add_seal`'s options ask for; outputs: files that it will be put on, `-` for stdout.

    InvalidValue for what contradicts itself, UnsupportedValue for a file that cannot be signed, MissingExtra where
    nothing is there to sign with.
    """
    key = mark_key(options.mark)
    for name in ("sign_certificate", "sign_key"):
        if getattr(options, name) is not None and not options.sign:
            flag = f"--{name.replace('_', '-')}"
            raise InvalidValue(f"{flag} belongs to --sign, which is not given", param=name)
    signer = None
    if options.sign:
        from .signature import Signer, check_signable

        for output in outputs:
            check_signable(output)
        signer = Signer.open(options.sign_certificate, options.sign_key)
    return Seal(key, getattr(options, "tag_text", False), signer)


def mark_key(mark: str | bool | None) -> str | None:
    """The key that an option or a setting means: True is the usual one."""
    if mark is None or isinstance(mark, bool):
        return DEFAULT_KEY if mark else None
    if any(char.isspace() for char in mark):
        raise InvalidValue(f"--mark took {mark!r} for its key, which has no spaces; {WAY_OUT}", param="mark")
    return mark


WAY_OUT = "put --mark behind the text, or write --mark=KEY"
