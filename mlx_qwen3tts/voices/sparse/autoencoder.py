"""A top-k sparse autoencoder over voices: features that each voice is a sum of a few of, found without labels.

x ≈ mean + radius × (centre + Σ z_f dictionary_f), where at most k of the z_f are above zero. Makhzani & Frey,
"k-Sparse Autoencoders" (2013); Gao et al., "Scaling and evaluating sparse autoencoders" (2024).
N voices, D dimension, F features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from ... import checks
from ...errors import InvalidValue
from ...files.tensors import all_finite, read_tensors, write_tensors
from ..algebra import as_vectors, units
from ..space import VoiceSpace
from ..voice import Voice, differ
from .separation import ENOUGH, TOO_FEW, SparseReport, assess

KIND = "sparse_autoencoder"
TENSORS = {"encoder": "FD", "bias": "F", "dictionary": "FD", "centre": "D", "mean": "D", "activation": "F"}

# Every so many steps, but not before all voices were seen, features that were active for none are made anew. In the
# last third they are left alone, to settle.
PERIOD, LAST = 50, 0.7
LAST_SEED = 2**32 - 1


class TopK(nn.Module):
    """The network, over vectors that are centred and divided by the radius.

    encoder [F, D], bias [F], dictionary [F, D] with rows of unit length, centre [D].
    """

    def __init__(self, dictionary: mx.array, k: int) -> None:
        super().__init__()
        self.encoder, self.dictionary = dictionary, dictionary
        self.bias, self.centre = mx.zeros(dictionary.shape[0]), mx.zeros(dictionary.shape[1])
        self.k = k

    def encode(self, x: mx.array) -> mx.array:
        """x [N, D] to the k largest features [N, F], those below zero being zero too."""
        values = (x - self.centre) @ self.encoder.T + self.bias
        largest = mx.argpartition(-values, self.k - 1, axis=-1)[:, : self.k]
        chosen = mx.put_along_axis(mx.zeros_like(values), largest, mx.array(1.0), axis=-1)
        return mx.maximum(values, 0) * mx.stop_gradient(chosen)

    def decode(self, z: mx.array) -> mx.array:
        return z @ self.dictionary + self.centre


def _loss(network: TopK, x: mx.array) -> tuple[mx.array, tuple[mx.array, mx.array]]:
    """Mean squared error, and for `revive` the features and the errors."""
    z = network.encode(x)
    error = x - network.decode(z)
    return mx.square(error).sum(axis=1).mean(), (z, error)


def train(
    X: mx.array,
    features: int,
    k: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Callable[[int], object] | None,
) -> TopK:
    """A TopK trained on centred and scaled voices X [N, D]. Equal arguments give equal weights."""
    count = X.shape[0]
    keys = iter(mx.random.split(mx.random.key(seed), steps + 1))
    network = TopK(units(X[mx.random.permutation(count, key=next(keys))[:features]]), k)
    optimizer = optim.Adam(optim.cosine_decay(learning_rate, steps, end=learning_rate / 50))
    differentiate = nn.value_and_grad(network, _loss)
    size = min(batch_size, count)
    batches = count // size
    period, fired = max(PERIOD, batches), mx.zeros(features, dtype=mx.bool_)
    for step in range(steps):
        if step % batches == 0:
            order = mx.random.permutation(count, key=next(keys))
        place = step % batches * size
        (_, (z, error)), gradients = differentiate(network, X[order[place : place + size]])
        # Rows keep their length, so what would only change it must not enter the optimizer's moments (Gao et al.).
        along = (gradients["dictionary"] * network.dictionary).sum(axis=1, keepdims=True)
        gradients["dictionary"] = gradients["dictionary"] - along * network.dictionary
        optimizer.update(network, gradients)
        network.dictionary = units(network.dictionary)
        fired = fired | (z > 0).any(axis=0)
        if step % period == period - 1:
            if step < LAST * steps:
                revive(network, optimizer, fired, error)
            fired = mx.zeros_like(fired)
        mx.eval(network.parameters(), optimizer.state, fired)
        if progress is not None:
            progress(step + 1)
    return network


def revive(network: TopK, optimizer: optim.Adam, fired: mx.array, error: mx.array) -> None:
    """Point the features that have not fired [F] at the voices of a batch that are explained worst; error [N, D].

    After Bricken et al., "Towards Monosemanticity" (2023). On made-up sparse data this finds more features than an
    auxiliary loss on the dead ones (Gao et al.), and the two together find no more than this alone.
    """
    dead = np.flatnonzero(~np.array(fired))[: error.shape[0]]
    if dead.size == 0:
        return
    rows = mx.array(dead)
    worst = mx.argsort(-mx.square(error).sum(axis=1))[: dead.size]
    directions = units(error[worst])
    network.dictionary[rows], network.encoder[rows], network.bias[rows] = directions, 0.5 * directions, 0.0
    for name in ("dictionary", "encoder", "bias"):
        for moment in ("m", "v"):
            optimizer.state[name][moment][rows] = 0.0


@dataclass(frozen=True, eq=False, repr=False)
class SparseAutoencoder:
    """network: a TopK; mean [D] and radius of the voices; activation [F], a feature's mean where it is active, zero
    where it is dead, active for none of them; count: how many voices it was fitted to.
    """

    network: TopK
    mean: mx.array
    radius: float
    activation: mx.array
    count: int

    def __post_init__(self) -> None:
        mx.eval(self.network.parameters(), self.mean, self.activation)  # so that any thread can use them

    def __repr__(self) -> str:
        return f"SparseAutoencoder({self.features} features, {self.k} in a voice, {self.dimension} dimensions)"

    @classmethod
    def fit(
        cls,
        X: mx.array | np.ndarray | Sequence[Voice],
        features: int | None = None,
        k: int | None = None,
        steps: int = 1500,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        seed: int = 0,
        progress: Callable[[int], object] | None = None,
    ) -> SparseAutoencoder:
        """Fit to voices X [N, D] or a list of Voices: thousands. With fewer than 1,000 it warns.

        features: default an eighth of N, at least 16, at most 4 D and N. k: how many a voice has at most, default half
        the square root of `features`. progress: called with the number of steps done so far. Equal arguments give the
        same autoencoder. InvalidValue for more features than voices, voices that are all the same, and a learning rate
        that is too high.
        """
        X = as_vectors(X, "voices", "X")
        space = VoiceSpace.fit(X)
        count, dimension = X.shape
        features = min(count, max(16, min(4 * dimension, count // 8))) if features is None else features
        features = checks.whole(features, "features", 1)
        k = checks.whole(max(1, round(math.sqrt(features) / 2)) if k is None else k, "k", 1)
        steps, batch_size = checks.whole(steps, "steps", 1), checks.whole(batch_size, "batch_size", 1)
        seed = checks.whole(seed, "seed", 0, LAST_SEED)
        learning_rate = checks.number(learning_rate, "learning_rate", above=0)
        if features > count:
            said = f"{features} features for {count} voices: each would be a voice; take fewer features"
            raise InvalidValue(said, param="features")
        if k > features:
            raise InvalidValue(f"k {k} is more than there are features, {features}", param="k")
        if count < ENOUGH:
            warnings.warn(TOO_FEW.format(count), stacklevel=2)
        scaled = (X - space.mean) / space.radius
        network = train(scaled, features, k, steps, batch_size, learning_rate, seed, progress)
        if not all(all_finite(part) for part in (network.encoder, network.bias, network.dictionary, network.centre)):
            raise InvalidValue(f"training failed at learning_rate {learning_rate}; lower it", param="learning_rate")
        times, total = mx.zeros(features), mx.zeros(features)
        for start in range(0, count, 4096):
            z = network.encode(scaled[start : start + 4096])
            times, total = times + (z > 0).sum(axis=0), total + z.sum(axis=0)
            mx.eval(times, total)
        return cls(network, space.mean, space.radius, total / mx.maximum(times, mx.array(1.0)), count)

    @property
    def features(self) -> int:
        return self.dictionary.shape[0]

    @property
    def k(self) -> int:
        return self.network.k

    @property
    def dimension(self) -> int:
        return self.mean.shape[0]

    @property
    def dictionary(self) -> mx.array:
        """[F, D]: each feature's direction, of unit length."""
        return self.network.dictionary

    @property
    def dead(self) -> list[int]:
        """Features that no voice it was fitted to has."""
        return np.flatnonzero(np.array(self.activation) == 0).tolist()

    def _check(self, x: Voice | mx.array | np.ndarray | Sequence[Any]) -> mx.array:
        x = as_vectors(x, "voice", "x")
        if x.shape[-1] != self.dimension:
            raise differ("the voice", x.shape[-1], "the autoencoder", self.dimension, "x")
        return x

    def encode(self, x: Voice | mx.array | np.ndarray | Sequence[Any]) -> mx.array:
        """x [D] or [N, D] to its features [F] or [N, F], at most k of them not zero; 1 is one radius."""
        x = (self._check(x) - self.mean) / self.radius
        return self.network.encode(x) if x.ndim == 2 else self.network.encode(x[None])[0]

    def decode(self, z: mx.array | np.ndarray) -> mx.array:
        """Features [F] or [N, F] to voices [D] or [N, D]."""
        z = as_vectors(z, "features", "z")
        if z.shape[-1] != self.features:
            raise InvalidValue(
                f"features have shape {list(z.shape)}; expected [{self.features}] or [N, {self.features}]"
            )
        return self.mean + self.radius * self.network.decode(z)

    def edit(
        self, x: Voice | mx.array | np.ndarray | Sequence[Any], feature: int, amount: float | mx.array
    ) -> mx.array:
        """x [D] or [N, D] moved along a feature's direction, by `amount` times what voices that have it have of it.

        What the autoencoder does not explain of x stays, and amount 0 gives x. InvalidValue for a dead feature.
        """
        x = self._check(x)
        feature = checks.whole(feature, "feature", 0, self.features - 1)
        usual = float(self.activation[feature])
        if usual == 0:
            said = f"feature {feature} is dead: no voice that the autoencoder was fitted to has it"
            raise InvalidValue(said, param="feature")
        return x + checks.number(amount, "amount") * usual * self.radius * self.dictionary[feature]

    def report(
        self,
        X: mx.array | np.ndarray | Sequence[Voice],
        labels: Sequence[Any] | np.ndarray | None = None,
        groups: Sequence[Any] | np.ndarray | None = None,
        seed: int = 0,
    ) -> SparseReport:
        """SparseReport on voices X [N, D], best on others than it was fitted to.

        labels: one a voice; a Separation says which features single out the voices of each. groups: one a voice too,
        such as its speaker; features are then judged on groups that they were not chosen on. seed: of the shufflings.
        """
        X = self._check(X)
        if X.ndim != 2:
            raise InvalidValue(f"a report is on voices [N, D], not on shape {list(X.shape)}", param="X")
        return assess(self, X, labels, groups, checks.whole(seed, "seed", 0, LAST_SEED))

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file."""
        arrays = {**self.network.parameters(), "mean": self.mean, "activation": self.activation}
        numbers = {"k": str(self.k), "radius": repr(self.radius), "count": str(self.count)}
        write_tensors(path, arrays, {"kind": KIND, **numbers})

    @classmethod
    def load(cls, path: Path | str) -> SparseAutoencoder:
        """Read what `save` wrote; InvalidValue for anything else."""
        arrays, metadata = read_tensors(path, "sparse autoencoder", TENSORS)
        mean, activation = arrays.pop("mean"), arrays.pop("activation")
        try:
            k, radius, count = int(metadata["k"]), float(metadata["radius"]), int(metadata["count"])
        except (KeyError, ValueError) as error:
            raise InvalidValue(f"sparse autoencoder {path}: its metadata are not those of one ({error})") from None
        if not 1 <= k <= activation.size or not 0 < radius < math.inf:
            raise InvalidValue(f"sparse autoencoder {path}: k {k} or radius {radius} cannot be")
        network = TopK(arrays["dictionary"], k)
        network.update(arrays)
        return cls(network, mean, radius, activation, count)
