"""What the features of a sparse autoencoder say of labels, and how much of it chance would say too."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ...errors import InvalidValue
from ..algebra import units
from ..space import check_labels, indices

if TYPE_CHECKING:
    from .autoencoder import SparseAutoencoder

ENOUGH = 1000  # voices; an autoencoder fitted to fewer warns
TOO_FEW = "fitted to {} voices: a sparse autoencoder needs thousands, or its features are those of these voices alone"
SHUFFLES, BEST = 200, 3  # shufflings of the labels; features that are named for each


@dataclass(frozen=True)
class Separation:
    """How the best features single out a label. AUC: the chance that a voice with the label has more of a feature than
    one without it.

    voices, groups: how many have it (groups: None where none are given); best: [(feature, AUC)]; shuffled: the best
    feature's AUC where labels are shuffled, median and 95th percentile; p: share of shufflings that do as well;
    held_out: AUC where each group is scored by the feature that is best for the others, or None.
    """

    label: Any
    voices: int
    groups: int | None
    best: list[tuple[int, float]]
    shuffled: tuple[float, float]
    p: float
    held_out: float | None = None

    def __str__(self) -> str:
        of = f"{self.voices} voices" + (f" of {self.groups} groups" if self.groups else "")
        best = ", ".join(f"{feature} with AUC {auc:.2f}" for feature, auc in self.best)
        median, high = self.shuffled
        out = f"; chosen on other groups {self.held_out:.2f}" if self.held_out is not None else ""
        chance = f"shuffled labels {median:.2f}, one time in 20 {high:.2f}; p = {self.p:.3f}"
        return f"{self.label} ({of}): feature {best}; {chance}{out}"


@dataclass(frozen=True)
class SparseReport:
    """explained: share of the squared distance to the mean; cosine: mean one of centred voices with what is made of
    their features; active: mean number of features; silent: features that none of these voices has; dead: those that
    none of the voices fitted to has; separations: one a label; warnings: sentences on what this cannot show.
    """

    voices: int
    features: int
    k: int
    explained: float
    cosine: float
    active: float
    silent: list[int]
    dead: list[int]
    separations: list[Separation]
    warnings: list[str]

    def __str__(self) -> str:
        lines = [
            f"{self.voices} voices; {self.features} features, {self.active:.1f} of at most {self.k} in a voice",
            f"explained: {self.explained:.0%} of the squared distance to the mean, cosine {self.cosine:.2f}",
            f"dead: {len(self.dead)} features; in none of these voices: {len(self.silent)}",
        ]
        return "\n".join([*lines, *map(str, self.separations), *self.warnings])


def assess(
    sae: SparseAutoencoder,
    X: mx.array,
    labels: Sequence[Any] | np.ndarray | None,
    groups: Sequence[Any] | np.ndarray | None,
    seed: int,
) -> SparseReport:
    """SparseReport of a SparseAutoencoder on voices X [N, D]."""
    count, z = X.shape[0], sae.encode(X)
    centred, rest = X - sae.mean, X - sae.decode(z)
    cosine = float((units(centred) * units(centred - rest)).sum(axis=1).mean())
    explained = 1 - float(mx.square(rest).sum() / mx.square(centred).sum())
    silent = np.flatnonzero(~np.array((z > 0).any(axis=0))).tolist()
    told = []
    if sae.count < ENOUGH:
        told.append(f"It was {TOO_FEW.format(sae.count)}. What it explains of them says nothing of other voices.")
    separations = []
    if labels is not None:
        kinds = check_labels(labels, count, "labels")
        owners = None if groups is None else check_labels(groups, count, "groups")
        dealt = np.random.default_rng(seed)
        separations = [_separation(z, kinds, label, owners, dealt) for label in indices(kinds)]
        told += _limits(sae.features, separations, kinds, owners)
    active = float((z > 0).sum(axis=1).mean())
    return SparseReport(count, sae.features, sae.k, explained, cosine, active, silent, sae.dead, separations, told)


def _separation(
    z: mx.array, labels: list[Any], label: Hashable, groups: list[Any] | None, dealt: np.random.Generator
) -> Separation:
    has = np.array([own == label for own in labels])
    if not 2 <= has.sum() <= len(has) - 2:
        raise InvalidValue(
            f"{has.sum()} of {len(has)} voices are labelled {label!r}; two are needed, and two others", param="labels"
        )
    ranks = midranks(z)
    own = np.array(auc(ranks, has[None]))[0]
    chance = np.array(auc(ranks, shuffled(has, groups, dealt)).max(axis=1))
    best = [(int(feature), float(own[feature])) for feature in np.argsort(-own, kind="stable")[:BEST]]
    p = float((1 + (chance >= own.max() - 1e-6).sum()) / (1 + len(chance)))
    median, high = np.percentile(chance, (50, 95)).tolist()
    if groups is None:
        return Separation(label, int(has.sum()), None, best, (median, high), p)
    holders = len({group for group, one in zip(groups, has, strict=True) if one})
    return Separation(label, int(has.sum()), holders, best, (median, high), p, _held_out(z, has, groups))


def midranks(z: mx.array) -> mx.array:
    """Ranks [N, F] of each column's values, less the mean of all; equal values share the mean of theirs."""
    count = z.shape[0]
    order = mx.argsort(z, axis=0)
    values = mx.take_along_axis(z, order, axis=0)
    place = mx.broadcast_to(mx.arange(count, dtype=mx.float32)[:, None], z.shape)
    new = mx.concatenate([mx.ones_like(values[:1], dtype=mx.bool_), values[1:] != values[:-1]])
    first = mx.cummax(mx.where(new, place, 0.0), axis=0)
    ends = mx.concatenate([new[1:], mx.ones_like(new[:1])])
    last = mx.cummin(mx.where(ends, place, float(count)), axis=0, reverse=True)
    return mx.put_along_axis(mx.zeros_like(z), order, (first + last - count + 1) / 2, axis=0)


def auc(ranks: mx.array, has: np.ndarray) -> mx.array:
    """Areas under the ROC curve [S, F] of centred midranks [N, F] for S ways [S, N] to have a label (Mann-Whitney)."""
    marks = mx.array(np.asarray(has, np.float32))
    with_it = marks.sum(axis=1, keepdims=True)
    return 0.5 + (marks @ ranks) / (with_it * (marks.shape[1] - with_it))


def shuffled(has: np.ndarray, groups: list[Any] | None, dealt: np.random.Generator) -> np.ndarray:
    """[SHUFFLES, N]: who has a label, dealt out anew: among groups where each has one label, else within each group."""
    count = len(has)
    _, member = np.unique([str(group) for group in groups or [""] * count], return_inverse=True)
    share = np.bincount(member, has) / np.bincount(member)
    if groups is not None and np.isin(share, (0, 1)).all():
        return dealt.permuted(np.tile(share, (SHUFFLES, 1)), axis=1)[:, member]
    # Sorted by group and, within it, at random.
    order = np.argsort(member + dealt.random((SHUFFLES, count)), axis=1)
    result = np.empty((SHUFFLES, count))
    result[:, np.argsort(member, kind="stable")] = has[order]
    return result


def _held_out(z: mx.array, has: np.ndarray, groups: list[Any]) -> float | None:
    """AUC of voices that are each scored by the feature that is best for the other groups, or None.

    A score is where a voice lies among the others: the mean of the shares of those with and those without the label
    that have less of the feature.
    """
    scores = np.full(len(has), np.nan)
    for rows in indices(groups).values():
        mine = np.isin(np.arange(len(has)), np.array(rows))
        if not has[~mine].any() or has[~mine].all():
            continue
        rest = z[mx.array(np.flatnonzero(~mine))]
        best = int(np.argmax(np.array(auc(midranks(rest), has[None, ~mine]))))
        own, others = np.array(z[:, best])[mine], np.array(rest[:, best])
        for side in (has[~mine], ~has[~mine]):
            less, equal = (how(own[:, None], others[side]).mean(axis=1) for how in (np.greater, np.equal))
            scores[mine] = np.nan_to_num(scores[mine]) + (less + equal / 2) / 2
    known = np.isfinite(scores)
    if not has[known].any() or has[known].all():
        return None
    ranks = midranks(mx.array(scores[known].astype(np.float32))[:, None])
    return float(auc(ranks, has[None, known]))


def _limits(features: int, separations: list[Separation], labels: list[Any], groups: list[Any] | None) -> list[str]:
    """Sentences on how far to trust the separations."""
    high = max(separation.shuffled[1] for separation in separations)
    told = [
        f"Where {features} features are tried on {len(labels)} voices a high AUC comes by chance: with shuffled labels "
        f"the best reaches {high:.2f} in one of 20 tries, and {len(separations)} labels were tried."
    ]
    if groups is None:
        return [*told, "No groups were given: if a speaker has several of these voices, this report flatters."]
    holders = [separation.groups or 0 for separation in separations]
    fewest, total = min(holders), len(set(groups))
    label = separations[holders.index(fewest)].label
    told.append(f"The voices are of {total} independent groups; {label} rests on {fewest} of them.")
    if sum(holders) == total:  # each group has one label
        ways = math.comb(total, fewest)
        told.append(f"Labels that go by group can be dealt out in {ways} ways only: p is never below {1 / ways:.3f}.")
    return told
