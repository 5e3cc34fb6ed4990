"""What each step of diarization is worth: the diarization error rate with all of them, and with each left out alone.

    python -m benchmarks.diarization [--shared FOLDER] [--seeds FIRST END] [--rule WORD]
                                     [--json]

The conversations are those of tests/diarization/conversations.py: made-up voices as tones, with vectors that are made
up or real (x-vectors of six speakers in six emotions), and spliced recordings; FOLDER holds what is real. Noise depends
on the window alone, so that two runs differ only by what is left out. Rates are percent, with a collar of 0 s,
overlapping speech included: the mean over conversations of two to five speakers, and over recordings of one speaker. A
step stays where leaving it out costs 0.1 points or more of either or fails a test, where it keeps a promise (as many
speakers as asked for) or where it saves time (the windows embedded).

Steps that were there once, and what leaving each out cost over 195 such conversations: a path of least changes over the
windows -0.05; a window's share of time +0.10, and nothing without that path, nor did its cap; centring on the
centroids' mean 0.00; settling anew before boundaries are sought +0.04; what two at once had to be worth -0.03; sharing
out after mergers where clusters are few alone 0.00; all these together -0.12. Without them, and over 432 conversations,
clusters between two others that were shared out among these were worth 0.07.

Four steps that remain pay less than 0.1 points over seeds 0 to 3 now: CLOSE (0.00), SMALL (-0.02), what is left must
settle (+0.09), finer windows next to a change (+0.06). While clusters between two others were still shared out, the
first paid 0.32 points there, the third 3.46 on single speakers, and over seeds 4 to 11 the second 0.71 on single
speakers; without the fourth, two conversations and the spliced recordings of the tests miss their limits.
"""

import argparse
import contextlib
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
from scipy import sparse

from mlx_qwen3tts.audio.regions import RATE
from mlx_qwen3tts.diarization import boundaries, clusters, diarize, recording, windows
from mlx_qwen3tts.errors import QwenTTSError
from tests.diarization import conversations as made


class Repeatable(made.Known):
    """Known vectors whose noise is the same for the same window, which is embedded once."""

    def __init__(self, vectors: np.ndarray, seed: int, *arguments: Any) -> None:
        super().__init__(vectors, seed, *arguments)
        self.seed = seed

    def scatter(self, samples: np.ndarray) -> np.ndarray:
        rows = [np.random.default_rng((self.seed, zlib.crc32(row))) for row in samples]
        return np.stack([row.normal(size=len(self.basis)) for row in rows])


class Kept:
    """An embedder that remembers, and counts the windows it is asked for."""

    def __init__(self, embed: Callable[[mx.array], mx.array]) -> None:
        self.embed, self.known, self.asked = embed, {}, 0

    def __call__(self, samples: mx.array) -> mx.array:
        rows = np.array(samples)
        keys = [zlib.crc32(row) for row in rows]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            found = np.array(self.embed(mx.array(rows[new])))
            self.known.update({keys[i]: row for i, row in zip(new, found, strict=True)})
        self.asked += len(rows)
        return mx.array(np.stack([self.known[key] for key in keys]))


@dataclass
class Case:
    """One conversation: what is heard, who speaks when, how it is diarized."""

    family: str
    samples: np.ndarray
    turns: list[tuple[float, float, Any]]
    embed: Kept
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def speakers(self) -> int:
        return len({who for *_, who in self.turns})


def made_up(family: str, seed: int, turns: list, noise: float, spread: int, **options: Any) -> Case:
    """Made-up vectors; spread: the dimensions that noise lies in."""
    count = 1 + max(who for *_, who in turns)
    basis = None if spread == made.DIMENSION else made.directions(seed, spread)
    embed = Kept(Repeatable(made.voices(seed, count), seed, noise, basis))
    return Case(family, made.sound(turns, seed), turns, embed, options)


def real(shared: Path, family: str, seed: int, count: int, emotions: int, given: bool) -> Case:
    """Real vectors, of each speaker in one emotion or more, from turn to turn; the noise is that of emotions."""
    vectors, noise, space = made.manners(shared, seed, count, emotions)
    turns = made.conversation(300 + seed, count)
    moods = np.random.default_rng(seed).integers(emotions, size=len(turns)).tolist()
    tones = [(first, end, emotions * who + mood) for (first, end, who), mood in zip(turns, moods, strict=True)]
    embed = Kept(Repeatable(vectors, seed, 0.8 if emotions == 1 else 0.5, noise))
    options = {"space": space, **({"num_speakers": count} if given else {})}
    return Case(family, made.sound(tones, seed), turns, embed, options)


def overlapping(seed: int, turns: list) -> list:
    """Turns of which a third begin before the last one has ended."""
    random, found, back = np.random.default_rng(seed), [], 0.0
    for first, end, who in turns:
        first, end = first - back, end - back
        if found and found[-1][2] != who and random.random() < 0.35:
            shift = max(first - (found[-1][1] - random.uniform(0.6, 1.6)), 0)
            back, first, end = back + shift, first - shift, end - shift
        found.append((first, end, who))
    return found


def cases(shared: Path, seeds: range) -> Iterator[Case]:
    """All conversations, of some seeds."""
    talk, every = made.conversation, made.DIMENSION
    for seed in seeds:
        for count in (2, 3, 4, 5):
            yield made_up("plain", seed, talk(100 + seed, count), 1.6, 30)
            yield made_up("noisy", seed, talk(100 + seed, count), 2.4, every)
            quick = talk(200 + seed, count, turn=(0.8, 3), direct=0.5)
            yield made_up("quick", seed, quick, 1.6, 20)
            yield real(shared, "real", seed, count, 1, False)
            yield real(shared, "real, number given", seed, count, 1, True)
        for count in (2, 3):
            yield made_up("short", seed, talk(510 + seed, count, seconds=25), 1.6, 30)
            yield real(shared, "two emotions", seed, count, 2, False)
            yield real(shared, "two emotions, number given", seed, count, 2, True)
            late = overlapping(seed, talk(550 + seed, count, turn=(2, 6)))
            yield made_up("overlap", seed, late, 1.0, 30, overlap=True)
            yield made_up("overlap asked, none", seed, talk(560 + seed, count, direct=0.5), 1.0, 20, overlap=True)
        yield made_up("one speaks most", seed, talk(seed, 2, share=[0.92, 0.08]), 1.6, 20)
        yield made_up("one speaks most", seed, talk(570 + seed, 3, share=[0.84, 0.08, 0.08]), 1.6, 20)
        yield made_up("long", seed, talk(500 + seed, 2 + seed % 4, seconds=180), 1.6, 30)
        yield real(shared, "one speaker, two emotions", seed, 1, 2, False)
        for noise in (0.3, 2.4):
            for spread in (3, 10, every):
                yield made_up("one speaker", seed, talk(seed, 1), noise, spread)
    embed = made.trained(shared, made.RECORDINGS)
    for seed in seeds:
        samples, turns = made.spliced(shared, made.RECORDINGS, seed)
        for options in ({}, {"num_speakers": 3}, {"num_speakers": 3, "overlap": True}):
            yield Case("recordings" + ", overlap asked" * ("overlap" in options), samples, turns, Kept(embed), options)


def merge_only(x: np.ndarray, groups: list[np.ndarray], i: int, j: int) -> list[np.ndarray]:
    rest = [group for k, group in enumerate(groups) if k not in (i, j)]
    return [*rest, np.concatenate([groups[i], groups[j]])]


def changes_only(x: np.ndarray, where: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return clusters.changes(clusters.nearest(x, centroids), where)


def pairs_only(x: np.ndarray, where: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    found = boundaries.costs(x, centroids, pairs=True)
    return found[:, : len(centroids)].min(axis=1) > 0


# What is put in a step's place: {step: (module, name, instead)}
RULES: dict[str, tuple[Any, str, Any]] = {
    "clusters: none finer than CLOSE to begin with": (clusters, "CLOSE", 0.0),
    "clusters: all windows shared out after a merger": (clusters, "merged", merge_only),
    "clusters: what is left must settle": (clusters, "settle", lambda x, where, groups: groups),
    "clusters: THRESHOLD of the cosine": (
        clusters,
        "cosine_distances",
        lambda centroids: np.full((len(centroids),) * 2, math.inf),
    ),
    "clusters: SPREADS of the windows": (clusters, "apart", lambda *_: math.inf),
    "clusters: windows that share sound left out": (
        clusters,
        "sharing",
        lambda spans: sparse.csr_array((len(spans),) * 2, dtype=np.float32),
    ),
    "clusters: SMALL ones farther apart": (clusters, "SMALL", 0.0),
    "boundaries: finer windows": (
        recording,
        "around",
        lambda *_: (np.zeros(0, int), np.zeros((0, 2), int)),
    ),
    "boundaries: finer where most like two": (recording, "undecided", changes_only),
    "boundaries: finer next to a change": (recording, "undecided", pairs_only),
    "boundaries: finer there alone": (windows, "HOP", math.inf),
    "boundaries: a window for certain of all asked for": (recording, "pin", lambda costs, count: np.zeros(0, int)),
    "boundaries: no pair that a change explains": (boundaries, "honest", lambda costs, count: costs.argmin(axis=1)),
}


def measure(every: list[Case]) -> dict[str, Any]:
    """Rates in percent by family, over conversations and single speakers; wrong numbers of speakers; windows."""
    rates: dict[str, list[float]] = {}
    wrong = asked = 0
    for case in every:
        case.embed.asked = 0
        try:
            found = diarize(case.samples, case.embed, **case.options)
        except QwenTTSError:  # too few speakers were found
            rate, wrong = 1.0, wrong + 1
        else:
            rate = made.error_rate(case.turns, found, case.samples.size / RATE)
            wrong += len(found.speakers) != case.speakers
        asked += case.embed.asked
        rates.setdefault(case.family, []).append(100 * rate)
    several = [rate for family, some in rates.items() if not family.startswith("one speaker") for rate in some]
    single = [rate for family, some in rates.items() if family.startswith("one speaker") for rate in some]
    families = {family: float(np.mean(some)) for family, some in rates.items()}
    return {
        "several": float(np.mean(several)),
        "single": float(np.mean(single)),
        "wrong": wrong,
        "windows": asked,
        "families": families,
    }


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="benchmarks.diarization", description=(__doc__ or "").split("\n\n")[0])
    options.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared", metavar="FOLDER")
    options.add_argument("--seeds", type=int, nargs=2, default=(0, 4), metavar=("FIRST", "END"))
    options.add_argument("--rule", metavar="WORD", help="leave out only steps whose name has this word")
    options.add_argument("--json", action="store_true", help="the figures as JSON on the last line")
    given = options.parse_args(arguments)
    every = list(cases(given.shared, range(*given.seeds)))
    single = sum(case.speakers == 1 for case in every)
    print(f"{len(every) - single} conversations of two to five speakers, {single} recordings of one\n")
    print("| left out | DER | | one speaker | | wrong number | windows |\n|---|---:|---:|---:|---:|---:|---:|")
    figures: dict[str, Any] = {}
    for name, rule in {"nothing": None, **RULES}.items():
        if rule is not None and given.rule is not None and given.rule not in name:
            continue
        with mock.patch.object(*rule) if rule is not None else contextlib.nullcontext():
            figures[name] = found = measure(every)
        base = figures["nothing"]
        more = "".join(
            f" | {found[key]:.2f} | {found[key] - base[key]:+.2f}" if rule else f" | {found[key]:.2f} |"
            for key in ("several", "single")
        )
        print(f"| {name}{more} | {found['wrong']} | {found['windows']:,} |", flush=True)
    print("\n" + "; ".join(f"{family} {rate:.2f}" for family, rate in figures["nothing"]["families"].items()))
    if given.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
