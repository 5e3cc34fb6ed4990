"""How two answers to the same question differ: the shared measure of everything that compares two devices or forms."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.parity import NEAR_TIE


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, of the largest value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference, of the norm."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


def first_code(found: np.ndarray, expected: np.ndarray, gaps: np.ndarray) -> dict[str, Any]:
    """Where codes [frames, codebooks] leave the expected ones, and how far the two best logits lie apart there.

    gaps: [frames, codebooks], of the expected ones.
    """
    shared = min(len(found), len(expected))
    differs = np.argwhere(found[:shared] != expected[:shared])
    told: dict[str, Any] = {
        "frames": len(found),
        "reference_frames": len(expected),
        "equal": len(found) == len(expected) and not len(differs),
    }
    if len(differs):
        frame, book = (int(value) for value in differs[0])
        told |= {"frame": frame, "codebook": book, "gap": float(gaps[frame, book])}
    return told


def of_codes(found: np.ndarray, expected: np.ndarray, gaps: np.ndarray) -> tuple[bool, str]:
    """Whether codes are equal up to a near-tie, in words."""
    told = first_code(found, expected, gaps)
    if told["equal"]:
        return True, f"codes equal, {len(expected)} frames"
    if "frame" not in told:
        return False, f"{len(found)} frames, expected {len(expected)}"
    where = f"codes leave at frame {told['frame']}, codebook {told['codebook']}, logits {told['gap']:.1e} apart"
    return bool(told["gap"] < NEAR_TIE), where + (", a near-tie" if told["gap"] < NEAR_TIE else "")


def of_numbers(name: str, found: np.ndarray, expected: np.ndarray, tolerance: float, measure=relative) -> str | None:
    """The first difference of two arrays in words, None where they agree; integers have to be equal."""
    if found.shape != expected.shape:
        return f"{name}: shape {list(found.shape)}, expected {list(expected.shape)}"
    if expected.dtype.kind in "iub":
        wrong = found != expected
        allowed = "equal"
    else:
        amount = measure(found, expected)
        if amount <= tolerance:  # so that NaN does not pass
            return None
        wrong = ~(np.abs(found - expected) <= tolerance * np.abs(expected).max())
        allowed = f"off by {amount:.1e}, {tolerance:.0e} allowed"
    if not wrong.any():
        return None if expected.dtype.kind in "iub" else f"{name}: {allowed}"
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{name}{list(place)}: {found[place]:.6g}, expected {expected[place]:.6g} ({allowed})"


def of_answers(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float, measure=relative
) -> tuple[bool, str]:
    """Whether two answers, arrays by name, agree; the first difference, or how far they are apart at most.

    Where there is an array "NAME gaps", NAME are codes that may leave the expected ones at a near-tie.
    """
    worst, words = 0.0, []
    if found.keys() != expected.keys():
        return False, f"answers {', '.join(found)}, expected {', '.join(expected)}"
    for name, wanted in expected.items():
        if name.endswith(" gaps"):
            continue
        if f"{name} gaps" in expected:
            agrees, told = of_codes(found[name], wanted, expected[f"{name} gaps"])
            if not agrees:
                return False, f"{name}: {told}"
            words.append(told)
            if "near-tie" in told:
                return True, told  # what follows it may differ too
            continue
        difference = of_numbers(name, found[name], wanted, tolerance, measure)
        if difference:
            return False, difference
        if wanted.dtype.kind not in "iub":
            worst = max(worst, measure(found[name], wanted))
    return True, ", ".join([*words, f"within {worst:.1e}" if worst else "equal"] if not words or worst else words)
