"""Sampling exactly as the official chain does it, in float32 and on the device.

Order: repetition penalty, minimum length, suppression, temperature, top-k (ties kept), top-p. The last three do
nothing at 1, 0 and 1. Drawing is argmax of the filtered logits plus Gumbel noise, which samples from their softmax;
the noise of frame t is a function of (seed, t) alone, so that a run can be repeated and a stream or batch row agrees.
B batch, V vocabulary.
"""

from dataclasses import dataclass, fields, replace
from numbers import Integral, Real

import mlx.core as mx

from ..errors import InvalidValue, WrongType

# Names in generation_config.json that differ from ours; `max_new_tokens` counts the first, unspoken token too.
CONFIG_NAMES = {"max_tokens": "max_new_tokens"}

RANGES = {
    "temperature": (0, 100),
    "top_k": (0, None),
    "top_p": (0, 1),
    "repetition_penalty": (0, 100),
    "subtalker_temperature": (0, 100),
    "subtalker_top_k": (0, None),
    "subtalker_top_p": (0, 1),
    "max_tokens": (2, None),
}


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The official package's defaults; a checkpoint's generation_config.json goes before them."""

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

    @classmethod
    def from_config(cls, values):
        """values: the content of generation_config.json; keys that are not about sampling are ignored."""
        names = {f.name: CONFIG_NAMES.get(f.name, f.name) for f in fields(cls)}
        return cls(**{name: values[key] for name, key in names.items() if values.get(key) is not None}).checked()

    def override(self, greedy=False, **values):
        """A copy with the values that are not None; `greedy` or temperature 0 makes both samplers argmax."""
        result = replace(self, **{name: value for name, value in values.items() if value is not None}).checked()
        if greedy or result.temperature == 0:
            result = replace(result, do_sample=False, subtalker_dosample=False)
        return result

    def checked(self):
        """A copy with plain Python numbers, or an error naming the value that is of a wrong type or out of range."""
        values = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is bool:
                if not isinstance(value, bool):
                    raise WrongType(f"{f.name} must be true or false, not {value!r}")
                continue
            if isinstance(value, bool) or not isinstance(value, Integral if f.type is int else Real):
                raise WrongType(f"{f.name} must be {'an integer' if f.type is int else 'a number'}, not {value!r}")
            values[f.name] = f.type(value)
            low, high = RANGES[f.name]
            if not (low <= value and (high is None or value <= high)):
                raise InvalidValue(
                    f"{f.name} {value} is not {f'between {low} and {high}' if high else f'{low} or more'}"
                )
        for name in ("temperature", "subtalker_temperature"):
            # Below this, logits divided by it overflow float32.
            if 0 < values[name] < 1e-6:
                raise InvalidValue(f"{name} {values[name]} is too small; 0 is greedy")
        for name in ("top_p", "subtalker_top_p", "repetition_penalty"):
            if values[name] == 0:
                raise InvalidValue(f"{name} must be above 0")
        return replace(self, **values)


def check_seed(seed):
    """Seeds are the first word of the noise's key: integers of 32 bits."""
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise WrongType(f"seed must be an integer, not {seed!r}")
    if not 0 <= seed < 2**32:
        raise InvalidValue(f"seed {seed} is not between 0 and {2**32 - 1}")
    return int(seed)


def filter_logits(logits, temperature, top_k, top_p):
    """Temperature, top-k and top-p on float32 logits [B, V]; what is cut becomes -inf."""
    if temperature != 1:
        logits = logits / temperature
    size = logits.shape[-1]
    if 0 < top_k < size:
        smallest = mx.partition(logits, size - top_k, axis=-1)[..., size - top_k : size - top_k + 1]
        logits = mx.where(logits < smallest, float("-inf"), logits)  # ties with the k-th stay
    if top_p < 1:
        order = mx.argsort(logits, axis=-1)  # ascending: what is summed up first is cut first
        mass = mx.cumsum(mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1), axis=-1)
        cut = mass <= 1 - top_p
        cut[..., -1] = False
        logits = mx.where(mx.put_along_axis(mx.zeros_like(cut), order, cut, axis=-1), float("-inf"), logits)
    return logits


def penalise(logits, seen, penalty):
    """Divide positive and multiply negative logits of the codes seen so far (Keskar et al., CTRL, 2019)."""
    return mx.where(seen, mx.where(logits < 0, logits * penalty, logits / penalty), logits)


def noise_keys(seeds, frame):
    """Keys [B, 2] of a frame's noise, one a row."""
    return mx.array([[seed, frame] for seed in seeds], mx.uint32)


class Sampler:
    """Both samplers, of codebook 0 with its history and of the predictor without, for B rows at once.

    It holds settings alone; what an utterance remembers goes in and comes out, so that everything here compiles.
    """

    def __init__(self, sampling, talker, predictor):
        """sampling: Sampling; talker: TalkerConfig; predictor: TransformerConfig."""
        self.sampling = sampling
        self.size, self.steps, self.rest_size = talker.vocab_size, talker.num_code_groups - 1, predictor.vocab_size
        self.ids = mx.arange(self.size)
        end = self.ids == talker.codec_eos_token_id
        # The last 1024 ids are control tokens, never spoken; end of speech alone may come, after two tokens.
        barred = (self.ids >= self.size - 1024) & ~end
        self.masks = [mx.where(cut, float("-inf"), 0.0) for cut in (barred | end, barred)]
        mx.eval(self.ids, self.masks)

    def mask(self, frame):
        """What is added to codebook 0's logits, [V]: -inf for ids that must not come in this frame."""
        return self.masks[0 if frame < 2 else 1]

    def unseen(self, rows):
        """The history [rows, V] of utterances that have not begun."""
        return mx.zeros((rows, self.size), mx.bool_)

    def noise(self, keys):
        """Gumbel noise of a frame: [B, V] for codebook 0 and [15, B, codebook] for the predictor; None in greedy."""
        s, count = self.sampling, self.steps * self.rest_size
        if not (s.do_sample or s.subtalker_dosample):
            return None, None
        drawn = mx.vmap(lambda key: mx.random.gumbel((self.size + count,), key=key))(keys)
        rest = drawn[:, self.size :].reshape(-1, self.steps, self.rest_size).transpose(1, 0, 2)
        return drawn[:, : self.size], rest

    def processed(self, logits, seen, mask):
        """Codebook 0's logits [B, V] after penalty, minimum length and suppression, float32."""
        return penalise(logits.astype(mx.float32), seen, self.sampling.repetition_penalty) + mask

    def first(self, logits, seen, mask, noise):
        """Codebook 0 from the talker's logits [B, V]: (codes [B], the history with them)."""
        logits, s = self.processed(logits, seen, mask), self.sampling
        if s.do_sample:
            logits = filter_logits(logits, s.temperature, s.top_k, s.top_p) + noise
        codes = mx.argmax(logits, axis=-1)
        return codes, seen | (self.ids == codes[:, None])

    def rest(self, logits, noise):
        """A later codebook from the predictor's logits [B, codebook]: codes [B]."""
        logits, s = logits.astype(mx.float32), self.sampling
        if s.subtalker_dosample and s.subtalker_temperature > 0:
            logits = filter_logits(logits, s.subtalker_temperature, s.subtalker_top_k, s.subtalker_top_p) + noise
        return mx.argmax(logits, axis=-1)
