"""Adapters of low rank, learnt from recordings: of one speaker or several, with their vectors or with them as they are.

The adapters are float32 over a talker of any dtype, quantised ones too; what is spoken with has the talker's dtype.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ..checkpoint import adapters
from ..checkpoint.adapters import IDENTITY, Adapter, Matrices, identity, sites
from ..checks import number, whole, word
from ..errors import InvalidValue, naming
from ..networks.process import enter
from ..networks.talker import Talker
from ..synthesis.request import LAYOUTS
from ..synthesis.tts import Qwen3TTS
from ..voices.library.names import check_name, unportable
from ..voices.voice import Voice
from .data import Data
from .fit import Parameters, Settings
from .judge import Figures, Judge
from .lessons import TOGETHER, Form, Lessons, sampled
from .loss import REST, Batch, batch, losses
from .spoken import SpokenFit, together
from .takes import Take, Takes
from .vector import check_model

ITERS, BATCH = 50, 4
RATE = 4e-4
RANK, SCALE = 8, 2.0  # mlx-lm's scale of 20 is far too much
KEYS = ("self_attn.q_proj", "self_attn.v_proj")
KNOWN = tuple(f"self_attn.{x}_proj" for x in "qkvo") + tuple(f"mlp.{x}_proj" for x in ("gate", "up", "down"))
SAMPLE = 96  # frames a step that the code predictor is asked about
PATIENCE = 4  # evaluations
ANCHOR = 0.25
STEP = 0.05  # of the vector's norm, over the root of its dimensions: the vector's highest learning rate
EVALUATED = 25  # batches of the clips held out
MIXED = "mixed"
NOBODY = "voice"  # a speaker without a name


@dataclass(frozen=True)
class LoraOptions:
    """What can be chosen. vector: fit the vectors too, where `anchor` is the cost of leaving the x-vectors; scale: what
    the adapters' products are multiplied by; keys: the layers that are adapted; layout: "mixed" for both; patience:
    evaluations without anything better, after which training ends; the rest as in `Settings` and `Form`."""

    iters: int = ITERS
    learning_rate: float = RATE
    batch_size: int = BATCH
    rank: int = RANK
    scale: float = SCALE
    keys: tuple[str, ...] = KEYS
    vector: bool = False
    anchor: float = ANCHOR
    steps_per_eval: int = 10
    val_batches: int = EVALUATED
    patience: int = PATIENCE
    seed: int = 0
    layout: str = MIXED
    language: str = "auto"
    sample: int = SAMPLE
    grad_checkpoint: bool = False

    def __post_init__(self) -> None:
        whole(self.rank, "rank", 1, 256)
        number(self.scale, "scale", above=0)
        number(self.anchor, "anchor", 0)
        whole(self.patience, "patience", 1)
        whole(self.seed, "seed", 0, 2**32 - 1)
        whole(self.val_batches, "val_batches", -1)
        whole(self.sample, "predictor_frames", 0)
        word(self.layout, "text_mode", (MIXED, *LAYOUTS))
        for key in self.keys:
            word(key, "keys", KNOWN)
        if not self.keys:
            raise InvalidValue(f"keys are empty; name some of {', '.join(KNOWN)}", param="keys")
        self.settings  # noqa: B018, which checks

    @property
    def settings(self) -> Settings:
        return Settings(self.iters, self.learning_rate, self.batch_size, self.steps_per_eval, self.seed)

    @property
    def layouts(self) -> tuple[str, ...]:
        return tuple(LAYOUTS) if self.layout == MIXED else (self.layout,)


def begun(talker: Talker, rank: int, keys: Sequence[str], seed: int) -> dict[str, Any]:
    """Adapters that add nothing yet, for the layers of these keys, as a tree: a as in mlx-lm, b zero."""
    flat = []
    for name, site in sites(talker).items():
        if name.endswith(tuple(f".{key}" for key in keys)):
            place = site.place
            random, most = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode())), 1 / math.sqrt(place.inputs)
            a = random.uniform(-most, most, (place.inputs, rank)).astype(np.float32)
            flat += [(f"{name}.lora_a", mx.array(a)), (f"{name}.lora_b", mx.zeros((rank, place.last - place.first)))]
    return tree_unflatten(flat)


def matrices_of(tree: Parameters) -> Matrices:
    """The matrices in such a tree by the names of their layers."""
    flat: dict[str, mx.array] = dict(tree_flatten(tree))  # pyright: ignore[reportAssignmentType]
    names = [name.removesuffix(".lora_a") for name in flat if name.endswith(".lora_a")]
    return {name: (flat[f"{name}.lora_a"], flat[f"{name}.lora_b"]) for name in names}


class LoraFit:
    """Adapters that are being fitted to Takes. speakers: their names; start: the mean x-vector [D] of each.

    `fit` makes the steps and, between them, speaks. While it does, and until `end`, the model computes with what is
    being fitted.
    """

    def __init__(
        self,
        tts: Qwen3TTS,
        takes: Takes,
        options: LoraOptions,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """progress: called while sentences are spoken, as for `Qwen3TTS.generate_batch`."""
        check_model(tts)
        enter()
        self.tts, self.takes, self.options, self.progress = tts, takes, options, progress
        self.speakers = list(dict.fromkeys(map(speaker, takes.train)))
        for take in takes.all:
            if speaker(take) not in self.speakers:
                message = f"data {take.clip.where}: speaker {speaker(take)} has no clip to learn from"
                raise InvalidValue(message, param="data")
        own = [[take.vector for take in takes.all if speaker(take) == name] for name in self.speakers]
        self.start = [mx.stack(vectors).mean(axis=0) for vectors in own]
        mx.eval(self.start)
        forms = [Form(layout, options.language) for layout in options.layouts]
        most = len(takes.valid) if options.val_batches < 0 else max(1, options.val_batches * options.batch_size)
        self.held = takes.valid[:most]
        self.lessons = [Lessons(tts, takes.train, form) for form in forms]
        self.held_out = [Lessons(tts, self.held, form) for form in forms]
        self.judges = [self._judge(name) for name in self.speakers]
        self.identity = identity(tts.folder)
        # Adam's steps do not depend on the gradient's size: a vector that is written as a multiple of this moves by as
        # much more than the adapters do.
        fitting = [STEP * float(mx.linalg.norm(v)) / math.sqrt(v.size) for v in self.start]
        self.stride = [rate / options.learning_rate for rate in fitting]
        parameters: dict[str, Any] = {"adapters": begun(tts.talker, options.rank, options.keys, options.seed)}
        if options.vector:
            parameters["moved"] = [mx.zeros(v.size) for v in self.start]
        self.fit = SpokenFit(
            parameters, self.objective, self.evaluate, len(takes.train), options.settings, self.listen, options.patience
        )

    def _judge(self, name: str) -> Judge:
        own = [take for take in self.takes.all if speaker(take) == name]
        spoken = [take for take in self.takes.spoken if speaker(take) == name]
        if not spoken:
            message = f"data: speaker {name} has no clip that is held out, by which to judge; two are needed"
            raise InvalidValue(message, param="data")
        return Judge(self.tts, spoken, own, Form(self.options.layouts[0], self.options.language), self.options.seed)

    # What is minimised

    def vectors(self, parameters: Parameters) -> list[mx.array]:
        """The vector [D] of each speaker."""
        if "moved" not in parameters:
            return self.start
        return [v + s * moved for v, s, moved in zip(self.start, self.stride, parameters["moved"], strict=True)]

    def spoken_by(self, parameters: Parameters, takes: Sequence[Take]) -> mx.array:
        """The vector of every Take's speaker [B, D]."""
        vectors = self.vectors(parameters)
        return mx.stack([vectors[self.speakers.index(speaker(take))] for take in takes])

    def batch(self, numbers: Sequence[int], seed: int) -> Batch:
        """Clips to learn from, each in a layout that is drawn."""
        drawn = np.random.RandomState(seed).randint(len(self.lessons), size=len(numbers))
        examples = [self.lessons[layout].example(number) for layout, number in zip(drawn, numbers, strict=True)]
        return batch(examples, self.lessons[0].end)

    def objective(
        self, parameters: Parameters, numbers: Sequence[int], seed: int
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """What a Fit minimises: the loss of some clips, and what leaving the x-vectors costs."""
        options, talker = self.options, self.tts.talker
        given = self.batch(numbers, seed)
        voices = self.spoken_by(parameters, [self.takes.train[number] for number in numbers])
        drawn = sampled(given.frames.size, options.sample, seed)
        # They stay there: with recomputing, the layers are called again when the gradient is asked for.
        adapters.put(talker, matrices_of(parameters["adapters"]), options.scale)
        first, rest = losses(talker, given, voices, drawn, options.grad_checkpoint)
        loss, figures = first + REST * rest, {"first": first, "rest": rest}
        if "moved" in parameters:
            pairs = zip(self.vectors(parameters), self.start, strict=True)
            figures["away"] = mx.stack([mx.mean(mx.square(v - x)) / mx.mean(mx.square(x)) for v, x in pairs]).mean()
            loss = loss + options.anchor * figures["away"]
        return loss, figures

    def _measured(
        self, lessons: Lessons, takes: Sequence[Take], voices: mx.array, size: int
    ) -> list[tuple[float, int]]:
        """(loss, frames) of Takes, `size` at a time, with the talker as it is; voices: of each [N, D]."""
        found = []
        for start in range(0, len(takes), size):
            stop = min(start + size, len(takes))
            given = lessons.batch(range(start, stop))
            first, rest = losses(self.tts.talker, given, voices[start:stop])
            found.append((float(first + REST * rest), given.frames.size))
        return found

    def evaluate(self, parameters: Parameters) -> float:
        """The held-out loss, in every layout that is learnt, every frame weighing the same."""
        adapters.put(self.tts.talker, matrices_of(parameters["adapters"]), self.options.scale)
        voices = self.spoken_by(parameters, self.held)
        found = [pair for lessons in self.held_out for pair in self._measured(lessons, self.held, voices, TOGETHER)]
        return sum(loss * frames for loss, frames in found) / sum(frames for _, frames in found)

    def losses(self) -> list[tuple[Take, float]]:
        """Every take with its loss under its speaker's x-vector, without adapters."""
        adapters.remove(self.tts.talker)
        takes = self.takes.all
        lessons = Lessons(self.tts, takes, Form(self.options.layouts[0], self.options.language))
        found = self._measured(lessons, takes, self.spoken_by({}, takes), 1)
        return [(take, loss) for take, (loss, _) in zip(takes, found, strict=True)]

    # What is spoken

    def listen(self, parameters: Parameters, loss: float) -> Figures:
        """How the held-out sentences sound with parameters whose held-out loss is given."""
        self.tts.adapt(self.adapter(parameters))
        pairs = zip(self.judges, self.vectors(parameters), strict=True)
        return together([judge.compare({"": v}, {"": loss}, self.progress)[""] for judge, v in pairs])

    def adapter(self, parameters: Parameters, values: Mapping[str, Any] | None = None) -> Adapter:
        """The Adapter that parameters are."""
        return Adapter(matrices_of(parameters["adapters"]), self.options.scale, values or {})

    def end(self) -> None:
        """Have the model as it was loaded again."""
        self.tts.adapt(None)

    @property
    def best(self) -> tuple[Adapter | None, dict[str, mx.array]]:
        """(the Adapter that speaks best so far, None where none is better than nothing; the vector [D] of each speaker
        by name)."""
        fit, options = self.fit, self.options
        found = dict(zip(self.speakers, self.vectors(fit.best if fit.best_step else {}), strict=True))
        if not fit.best_step:
            return None, found
        values = {
            "model": self.tts.folder.folder.name,
            IDENTITY: self.identity,
            "speakers": self.speakers,
            "vector": options.vector,
            "text_mode": options.layout,
            "iters": options.iters,
            "best_step": fit.best_step,
            "batch_size": options.batch_size,
            "learning_rate": options.learning_rate,
            "grad_checkpoint": options.grad_checkpoint,
            "seed": options.seed,
        }
        return self.adapter(fit.best, values), found

    def voices(
        self, language: str | None = None, consent: str | None = None, license: str | None = None
    ) -> dict[str, Voice]:
        """The Voice of each speaker by name, as they go with the best adapter."""
        source = self.tts.folder.folder.name
        return {
            name: Voice(
                vector,
                source_model=source,
                language=language,
                consent=consent,
                license=license,
                recipe=self.recipe(name),
            )
            for name, vector in self.best[1].items()
        }

    def recipe(self, name: str) -> dict[str, Any]:
        """How a speaker's vector was made, for its file."""
        own = [take for take in self.takes.all if speaker(take) == name]
        made: dict[str, Any] = {"tuned": "x-vector", "clips": len(own)}
        made["seconds"] = round(sum(take.seconds for take in own), 1)
        if self.fit.best_step:
            adapter = self.best[0]
            assert adapter is not None, "a best step has an adapter"
            made |= {"adapter": adapter.digest}
            if self.options.vector:
                made |= {"tuned": "with an adapter", "step": self.fit.best_step, "anchor": self.options.anchor}
        return made


def check_speakers(data: Data) -> None:
    """InvalidValue unless the speakers' names can be those of files."""
    names = list(dict.fromkeys(clip.speaker or NOBODY for clip in data.clips))
    for name in names:
        with naming("data: speaker", "data"):
            check_name(name)
        if name == Path(adapters.TENSORS).stem or (why := unportable(name, names)):
            why = "it is the adapter's" if name == Path(adapters.TENSORS).stem else why
            raise InvalidValue(f"data: speaker {name} cannot be a file's name: {why}", param="data")


def speaker(take: Take) -> str:
    """Who speaks in a Take."""
    return take.clip.speaker or NOBODY
