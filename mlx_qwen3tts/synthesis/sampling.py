"""Sampling exactly as the official chain does it, in float32 and on the device.

Order: repetition penalty, minimum length, suppression, temperature, top-k (ties kept), top-p. The last three do
nothing at 1, 0 and 1. Drawing is argmax of the filtered logits plus Gumbel noise, which samples from their softmax;
the noise of frame t is a function of (seed, t) alone, so that a run can be repeated and a stream or batch row agrees.
B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from .. import checks
from ..networks import kernels
from ..networks.config import TalkerConfig, TransformerConfig
from .request import PROCESSORS, Sampling

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .request import LogitsProcessor, SamplingOptions

# Names in generation_config.json that differ from ours; `max_new_tokens` counts the first, unspoken token too.
CONFIG_NAMES = {"max_tokens": "max_new_tokens"}


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are drawn, every value decided: the official package's defaults, or a generation_config.json's."""

    do_sample: bool = True
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    subtalker_dosample: bool = True
    subtalker_temperature: float = 0.9
    subtalker_top_k: int = 50
    subtalker_top_p: float = 1.0
    max_tokens: int = 2048
    logits_processors: Sequence[LogitsProcessor] = ()
    subtalker_logits_processors: Sequence[LogitsProcessor] = ()

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("do_sample", "subtalker_dosample"):
            checks.flag(values.pop(name), name)
        checked = Sampling(**values)
        for name in values:
            if getattr(checked, name) is None:
                checks.number(None, name)
            object.__setattr__(self, name, getattr(checked, name))

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> GenerationConfig:
        """values: the content of generation_config.json; keys that are not about sampling are ignored."""
        names = {f.name: CONFIG_NAMES.get(f.name, f.name) for f in fields(cls) if f.name not in PROCESSORS}
        return cls(**{name: values[key] for name, key in names.items() if values.get(key) is not None})

    def sampled(self, sampling: Sampling) -> GenerationConfig:
        """A copy with what is asked for; `greedy` or temperature 0 makes both samplers argmax."""
        values = {f.name: getattr(sampling, f.name) for f in fields(sampling)[1:]}
        values = {name: value for name, value in values.items() if value is not None and value != ()}
        result = replace(self, **values)
        if sampling.greedy or result.temperature == 0:
            result = replace(result, do_sample=False, subtalker_dosample=False)
        return result

    def override(self, **values: Unpack[SamplingOptions]) -> GenerationConfig:
        """`sampled` with Sampling's values as keyword arguments."""
        return self.sampled(Sampling(**values))

    @property
    def processes(self) -> bool:
        """Whether functions of the user's change the logits."""
        return bool(self.logits_processors or self.subtalker_logits_processors)


def draw(logits: mx.array, noise: mx.array | None, temperature: float, top_k: int, top_p: float) -> mx.array:
    """Codes [B] drawn from logits [B, V] with Gumbel noise [B, V]."""
    assert noise is not None, "what draws has noise"
    if kernels.samples(logits, top_p):
        return kernels.sample_row(logits, noise, mx.array([temperature]), mx.array([top_k], mx.int32))
    return mx.argmax(filter_logits(logits.astype(mx.float32), temperature, top_k, top_p) + noise, axis=-1)


def filter_logits(logits: mx.array, temperature: float, top_k: int, top_p: float) -> mx.array:
    """Temperature, top-k and top-p on float32 logits [B, V]; what is cut becomes -inf."""
    if temperature != 1:
        logits = logits / temperature
    size = logits.shape[-1]
    if 0 < top_k < size:
        smallest = mx.partition(logits, size - top_k, axis=-1)[..., size - top_k : size - top_k + 1]
        logits = mx.where(logits < smallest, float("-inf"), logits)  # ties with the k-th stay
    if top_p < 1:
        logits = _cut_tail(logits, 1 - top_p, True)
    return logits


def _cut_tail(logits: mx.array, tail: float | mx.array, rows: bool | mx.array) -> mx.array:
    """Top-p: cut the least likely codes that together have `tail` of the probability or less, in `rows` alone."""
    order = mx.argsort(logits, axis=-1)  # ascending: what is summed up first is cut first
    mass = mx.cumsum(mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1), axis=-1)
    cut = mass <= tail if rows is True else (mass <= tail) & rows
    cut[..., -1] = False
    return mx.where(mx.put_along_axis(mx.zeros_like(cut), order, cut, axis=-1), float("-inf"), logits)


def penalise(logits: mx.array, seen: mx.array, penalty: float | mx.array) -> mx.array:
    """Divide positive and multiply negative logits of the codes seen so far (Keskar et al., CTRL, 2019)."""
    return mx.where(seen, mx.where(logits < 0, logits * penalty, logits / penalty), logits)


def unseen(rows: int, size: int) -> mx.array:
    """The history [rows, V] of utterances that have not begun; size: V."""
    return mx.zeros((rows, size), mx.bool_)


def noise_keys(seeds: Sequence[int], frames: Sequence[int]) -> mx.array:
    """Keys [B, 2] of a frame's noise, one a row: its seed and the number of its frame."""
    return mx.array([[seed, frame] for seed, frame in zip(seeds, frames, strict=True)], mx.uint32)


class Sampler:
    """Both samplers, of codebook 0 with its history and of the predictor without, for B rows that sample alike.

    It holds settings alone; what an utterance remembers goes in and comes out, so that everything here compiles.
    """

    def __init__(self, config: GenerationConfig, talker: TalkerConfig, predictor: TransformerConfig) -> None:
        self.config = config
        self.size, self.steps, self.rest_size = talker.vocab_size, talker.num_code_groups - 1, predictor.vocab_size
        self.ids = mx.arange(self.size)
        end = self.ids == talker.codec_eos_token_id
        # The last 1024 ids are control tokens, never spoken; end of speech alone may come, after two tokens.
        barred = (self.ids >= self.size - 1024) & ~end
        self.masks = [mx.where(cut, float("-inf"), 0.0) for cut in (barred | end, barred)]
        self.table = mx.stack(self.masks)
        mx.eval(self.ids, self.masks, self.table)

    @property
    def draws(self) -> bool:
        """Whether anything is left to chance."""
        return self.config.do_sample or self.config.subtalker_dosample

    def mask(self, frames: Sequence[int]) -> mx.array:
        """What is added to codebook 0's logits: -inf for ids that must not come. [V] for one row, [B, V] for more.

        frames: the number of each row's frame.
        """
        phases = [0 if frame < 2 else 1 for frame in frames]
        return self.masks[phases[0]] if len(phases) == 1 else self.table[mx.array(phases)]

    def noise(self, keys: mx.array) -> tuple[mx.array | None, mx.array | None]:
        """Gumbel noise of a frame: [B, V] for codebook 0 and [steps, B, codebook] for the predictor; None in greedy."""
        count = self.steps * self.rest_size
        if not self.draws:
            return None, None
        drawn = mx.vmap(lambda key: mx.random.gumbel((self.size + count,), key=key))(keys)
        rest = drawn[:, self.size :].reshape(-1, self.steps, self.rest_size).transpose(1, 0, 2)
        return drawn[:, : self.size], rest

    def settings(self) -> Any:
        """What `first` and `rest` need beside the logits, as arrays: nothing, since it is the same for every row."""
        return None

    def processed(self, logits: mx.array, seen: mx.array, mask: mx.array) -> mx.array:
        """Codebook 0's logits [B, V] after penalty, minimum length and suppression, float32."""
        return penalise(logits.astype(mx.float32), seen, self.config.repetition_penalty) + mask

    def first(
        self, logits: mx.array, seen: mx.array, mask: mx.array, noise: mx.array | None, settings: Any = None
    ) -> tuple[mx.array, mx.array]:
        """Codebook 0 from the talker's logits [B, V]: (codes [B], the history with them)."""
        logits, c = self.processed(logits, seen, mask), self.config
        codes = draw(logits, noise, c.temperature, c.top_k, c.top_p) if c.do_sample else mx.argmax(logits, axis=-1)
        return codes, seen | (self.ids == codes[:, None])

    def rest(self, logits: mx.array, noise: mx.array | None, settings: Any = None) -> mx.array:
        """A later codebook from the predictor's logits [B, codebook]: codes [B]."""
        c = self.config
        if c.subtalker_dosample and c.subtalker_temperature > 0:
            return draw(logits, noise, c.subtalker_temperature, c.subtalker_top_k, c.subtalker_top_p)
        return mx.argmax(logits.astype(mx.float32), axis=-1)


class MixedSampler(Sampler):
    """The same for rows that each have values of their own, which go in as arrays, so that one compiled form serves
    all of them. Every row draws what it would draw alone; the price is a sort where equal rows have a partition.
    """

    def __init__(self, configs: Sequence[GenerationConfig], talker: TalkerConfig, predictor: TransformerConfig) -> None:
        """configs: of each row. Rows may be added without one (padding to a bucket); they draw as the last one does."""
        super().__init__(configs[0], talker, predictor)
        self.configs = list(configs)
        self.tails = any(config.top_p < 1 for config in configs), any(config.subtalker_top_p < 1 for config in configs)

    @property
    def draws(self) -> bool:
        return any(config.do_sample or config.subtalker_dosample for config in self.configs)

    @property
    def form(self) -> tuple[bool, ...]:
        """What the compiled form depends on."""
        return (self.draws, *self.tails)

    def settings(self, rows: int | None = None) -> list[dict[str, mx.array]]:
        """For codebook 0 and for the rest: {name: [B, 1]} of `rows` rows."""
        configs = [*self.configs, *self.configs[-1:] * ((rows or len(self.configs)) - len(self.configs))]
        first = [(c.do_sample, c.temperature, c.top_k, c.top_p) for c in configs]
        rest = [
            (
                c.subtalker_dosample and c.subtalker_temperature > 0,
                c.subtalker_temperature,
                c.subtalker_top_k,
                c.subtalker_top_p,
            )
            for c in configs
        ]
        made = []
        for size, values in ((self.size, first), (self.rest_size, rest)):
            draws, temperatures, ks, ps = zip(*values, strict=True)
            made.append(
                {
                    "draws": mx.array(draws)[:, None],
                    "temperature": mx.array([t or 1.0 for t in temperatures])[:, None],
                    # From below: where the k-th largest stands among the sorted; the first where all are kept.
                    "place": mx.array([size - k if 0 < k < size else 0 for k in ks])[:, None],
                    "kept": mx.array([k if d else -1 for d, k in zip(draws, ks, strict=True)], mx.int32)[:, None],
                    "tail": mx.array([1 - p for p in ps])[:, None],
                    "cuts": mx.array([p < 1 for p in ps])[:, None],
                }
            )
        made[0]["penalty"] = mx.array([c.repetition_penalty for c in configs])[:, None]
        return made

    def first(
        self, logits: mx.array, seen: mx.array, mask: mx.array, noise: mx.array | None, settings: Any = None
    ) -> tuple[mx.array, mx.array]:
        logits = penalise(logits.astype(mx.float32), seen, settings[0]["penalty"]) + mask
        codes = _draw_each(logits, noise, settings[0], self.tails[0])
        return codes, seen | (self.ids == codes[:, None])

    def rest(self, logits: mx.array, noise: mx.array | None, settings: Any = None) -> mx.array:
        return _draw_each(logits, noise, settings[1], self.tails[1])


def _draw_each(logits: mx.array, noise: mx.array | None, values: dict[str, mx.array], tails: bool) -> mx.array:
    """Codes [B] drawn from logits [B, V], each row with its own values; rows that do not draw take the largest."""
    if noise is not None and kernels.samples(logits, 0 if tails else 1):
        return kernels.sample_row(logits, noise, values["temperature"].reshape(-1), values["kept"].reshape(-1))
    logits = logits.astype(mx.float32)
    if noise is None:
        return mx.argmax(logits, axis=-1)
    filtered = logits / values["temperature"]
    smallest = mx.take_along_axis(mx.sort(filtered, axis=-1), values["place"], axis=-1)
    filtered = mx.where(filtered < smallest, float("-inf"), filtered)
    if tails:
        filtered = _cut_tail(filtered, values["tail"], values["cuts"])
    return mx.argmax(mx.where(values["draws"], filtered + noise, logits), axis=-1)
