"""Consent and licence of a voice that is made of others: the strictest of its parents'.

Both are what somebody wrote down. Nothing here verifies them.
"""

from collections.abc import Iterable, Mapping, Sequence

from ...checks import word

# From the laxest to the strictest. "not-needed" is for voices that are nobody's; no entry reads as "unknown".
CONSENT = ("not-needed", "given", "unknown", "refused")
UNKNOWN, REFUSED = "unknown", "refused"

# SPDX names: what they ask for beyond public domain. Any other name asks for something of its own.
CONDITIONS: dict[str, set[str]] = {
    "CC0-1.0": set(),
    "Unlicense": set(),
    "CC-BY-4.0": {"by"},
    "CC-BY-SA-4.0": {"by", "sa"},
    "CC-BY-NC-4.0": {"by", "nc"},
    "CC-BY-NC-SA-4.0": {"by", "nc", "sa"},
    "CC-BY-ND-4.0": {"by", "nd"},
    "CC-BY-NC-ND-4.0": {"by", "nc", "nd"},
}


def check_consent(consent: str) -> str:
    """One of CONSENT, or InvalidValue."""
    return word(consent, "consent", CONSENT)


def strictest_consent(consents: Iterable[str | None]) -> str:
    """The strictest of several entries, None for a voice that has none; a word that is not known counts as unknown."""
    known = [consent if consent is not None and consent in CONSENT else UNKNOWN for consent in consents]
    return max(known, key=CONSENT.index)


def strictest_license(licenses: Iterable[str | None]) -> str:
    """One licence whose conditions hold all the others', or those that do not hold each other joined by AND.

    licenses: SPDX names or other words, None where there is no entry: then nothing is granted, which is the strictest.
    """
    names = sorted({name for license in licenses for name in (license or UNKNOWN).split(" AND ")})
    if UNKNOWN in names:
        return UNKNOWN
    conditions = {name: CONDITIONS.get(name, {name}) for name in names}
    kept = [
        name
        for i, name in enumerate(names)
        if not any(
            conditions[name] < conditions[other] or (conditions[name] == conditions[other] and other in names[:i])
            for other in names
        )
    ]
    return " AND ".join(kept)


def laxer(key: str, value: str | None, before: str | None) -> bool:
    """Whether a consent or licence asks for less than what stood there before."""
    strictest = strictest_consent if key == "consent" else strictest_license
    return strictest([value, before]) != strictest([value])


def forbids_derivatives(license: object) -> bool:
    """Whether a licence lets nobody pass on what is made from the voice (its ND condition)."""
    return isinstance(license, str) and any("nd" in CONDITIONS.get(name, ()) for name in license.split(" AND "))


def inherited(parents: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """{"consent": …, "license": …} for what is made of voices whose metadata these are; without what no parent has."""
    entries = {}
    if any("consent" in parent for parent in parents):
        entries["consent"] = strictest_consent([parent.get("consent") for parent in parents])
    if any("license" in parent for parent in parents):
        entries["license"] = strictest_license([parent.get("license") for parent in parents])
    return entries
