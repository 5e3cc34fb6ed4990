"""Reading what the recogniser gives: connectionist temporal classification (Graves et al. 2006) over words."""

import numpy as np


def read(best, known):
    """The words of the best path [T] of a recogniser: repetitions and blanks (0) left out."""
    return [known[b - 1] for a, b in zip([0, *best[:-1]], best, strict=True) if b and b != a]


def place_words(scores, labels):
    """When each label is heard: float [K], the mean step of each on the likeliest path.

    scores: log probabilities [T, classes], 0 the blank; labels: K classes. Raises ValueError where T is too short.
    """
    states = np.zeros(2 * len(labels) + 1, int)
    states[1::2] = labels
    # from a state one may stay, go to the next, or leave out a blank between two labels that differ
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    came = np.zeros((len(scores), len(states)), int)
    for step in range(1, len(scores)):
        choices = np.full((3, len(states)), -np.inf)
        choices[0] = best
        choices[1, 1:] = best[:-1]
        choices[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        came[step] = choices.argmax(0)
        best = choices.max(0) + scores[step, states]
    state = len(states) - 1 - int(best[-2] > best[-1])
    if not np.isfinite(best[state]):
        raise ValueError(f"{len(scores)} steps are too few for {len(labels)} words")
    path = np.zeros(len(scores), int)
    for step in range(len(scores) - 1, -1, -1):
        path[step] = state
        state -= came[step, state]
    return np.array([np.flatnonzero(path == 2 * k + 1).mean() for k in range(len(labels))])


def of_frames(heard, frames):
    """The word of each frame, int [frames]; heard: when each word is, in frames."""
    return np.searchsorted((heard[1:] + heard[:-1]) / 2, np.arange(frames) + 0.5)
