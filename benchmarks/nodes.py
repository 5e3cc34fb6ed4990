"""How many kernels a GPU is asked to run for one frame of speech, and how long Python takes to ask.

    python -m benchmarks.nodes [--size 0.6b] [--bits 8] [--kernels fused] [--json]

Builds the graph of a frame in the forms for a GPU, at the published shapes, evaluates nothing and counts its nodes:
views are free and not counted, an `mx.fast` call is the one kernel that it is on a GPU, and what `mx.compile` fuses is
one. Needs no weights, no GPU and little memory. Fusing is counted as MLX does it here, which on Linux needs g++.

Then the gate's table (benchmarks/gate.py): kernels, waits, bytes and Python calls a frame at 0.6B in bfloat16, for one
row and eight, plain and with what can be switched on. Nodes are what the graph asks for; what a GPU is really given is
more, as MLX adds copies of its own (benchmarks/README.md has a profiler's count).

talker: the step with text added to its input, up to the logits. predictor: its 15 steps, heads and embeddings, and the
sum of the frame's 16 embeddings. sampling: everything else, noise included.
"""

import argparse
import collections
import contextlib
import io
import json
import re
import statistics
import time
from dataclasses import asdict
from unittest import mock

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from convert.random_checkpoint import SIZES, configs
from mlx_qwen3tts.networks import kernels
from mlx_qwen3tts.networks.config import ModelConfig
from mlx_qwen3tts.networks.device import form
from mlx_qwen3tts.networks.talker import Talker
from mlx_qwen3tts.synthesis.frame import Steps
from mlx_qwen3tts.synthesis.loop import Generation, Row
from mlx_qwen3tts.synthesis.prompt import Prompt, Text
from mlx_qwen3tts.synthesis.sampling import GenerationConfig

# They give other names and shapes to what is there; nothing is computed.
VIEWS = {"AsStrided", "Broadcast", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "StopGradient"}
VIEWS |= {"Transpose", "Unflatten", "Depends"}
POSITION = 100  # of the cache
PROMPT, BEHIND = 9, 3  # positions of a prompt, and those from the speaker's on: the streaming layout, language auto

# MLX builds an `mx.fast` call of several operations unless the device is a GPU. Each is replaced by one operation that
# occurs nowhere else and keeps the shape, and is counted under its own name. So is each fused kernel, which MLX
# does not build at all without a GPU.
STAND_INS = {
    "rms_norm": ("CumMin", lambda x, *_, **__: mx.cummin(x, axis=-1)),
    "rope": ("CumMax", lambda x, *_, **__: mx.cummax(x, axis=-1)),
    "scaled_dot_product_attention": ("CumProd", lambda q, k, v, **_: mx.depends([mx.cumprod(q, axis=-1)], [k, v])[0]),
}
KERNELS = {"qk_rope_write": ("CumLogAddExp", mx.logcumsumexp), "sample_row": ("ArgSort", mx.argsort)}
BUDGET = {"mlx-audio": {"talker": 667, "predictor": 2081}}  # without its sampling


@contextlib.contextmanager
def for_gpu():
    """Build what a GPU would run within the block."""
    with form("gpu"), contextlib.ExitStack() as stack:
        for name, (_, stand_in) in STAND_INS.items():
            stack.enter_context(mock.patch.object(mx.fast, name, stand_in))
        stack.enter_context(mock.patch.object(kernels, "launch", launch))
        yield


def launch(name, inputs, constants, groups, outputs):
    """One operation on a number of a kernel's first input, and views of it in place of the outputs."""
    number = mx.depends([KERNELS[name][1](inputs[0].reshape(-1)[:1])], inputs[1:])[0]
    return [mx.broadcast_to(number, shape) for shape, _ in outputs]


def count(*outputs):
    """Nodes that compute, of the graph behind the outputs: {primitive: how many}."""
    dot = io.StringIO()
    mx.export_to_dot(dot, *outputs)
    found = collections.Counter(re.findall(r'\[label ="(\w+)", shape=rectangle\]', dot.getvalue()))
    for name, (label, _) in (STAND_INS | KERNELS).items():
        if label in found:
            found[name] = found.pop(label)
    return collections.Counter({name: number for name, number in found.items() if name not in VIEWS})


def blank(shape, dtype):
    """An array of zeros that takes no memory."""
    array = mx.broadcast_to(mx.array(0, dtype), shape)
    mx.eval(array)
    return array


def blank_talker(size, bits=None):
    """A fused Talker of a published shape without weights, quantised where `bits` are given, and its ModelConfig."""
    config = ModelConfig.from_dict(configs(size, "base")[0])
    talker = Talker(config)
    talker.set_dtype(mx.bfloat16)
    if bits:
        nn.quantize(talker, 64, bits, class_predicate=lambda _, layer: isinstance(layer, nn.Linear))
    for _, part in reversed(talker.named_modules()):
        if hasattr(part, "fuse"):
            part.fuse()
    talker.update(tree_map(lambda array: blank(array.shape, array.dtype), talker.parameters()))
    return talker, config


class FrameGraph:
    """The graph of one frame in the middle of speech, without weights.

    Where there are several rows, each has padding of its own, as rows of different texts have.
    """

    def __init__(self, talker, config, sampling=None, rows=1, fused=()):
        """sampling: GenerationConfig, the official defaults if None; rows: spoken together; fused: the names of the
        kernels in use."""
        self.talker, self.width, self.fused = talker, config.talker.hidden_size, frozenset(fused)
        self.steps = Steps(talker, config, self.fused)
        self.config, self.rows = sampling or GenerationConfig(), rows
        self.shape = rows, config.talker.num_key_value_heads, 256, config.talker.head_dim

    def hidden(self):
        return blank((self.rows, 1, self.width), self.talker.dtype)

    def caches(self):
        caches = self.talker.make_cache()
        for cache in caches:
            cache.pair, cache.offset = blank((2, *self.shape), self.talker.dtype), POSITION
        return caches

    def generation(self):
        """A Generation that stands in the middle of speech."""
        text = Text(blank((1, self.width), self.talker.dtype), blank((self.width,), self.talker.dtype))
        prompt = Prompt(blank((PROMPT, self.width), self.talker.dtype), text, PROMPT - BEHIND)
        generation = Generation(self.talker, self.steps, end=-1)  # no code ends it
        generation.rows = [Row(i, prompt, i, self.config, None, tokens=POSITION) for i in range(self.rows)]
        generation.padding = list(range(self.rows))
        generation.caches, generation.embedding = self.caches(), self.hidden()
        generation.seen = self.steps.unseen(self.rows)
        mx.eval(generation.seen)
        return generation

    def frame(self, generation=None):
        """What the loop enqueues for a frame, unevaluated, and the milliseconds that building it took."""
        generation, enqueued = generation or self.generation(), []
        with mock.patch.object(mx, "async_eval", lambda *arrays: enqueued.extend(arrays)):
            start = time.perf_counter()
            generation.enqueue()
            return enqueued, 1000 * (time.perf_counter() - start)

    def talker_step(self):
        with kernels.using(self.fused):
            return self.talker(self.hidden() + self.hidden(), self.caches())

    def predictor(self):
        code, logits = mx.array([0], mx.uint32), []

        def predict(hidden, code):
            codes = self.talker.predict(hidden, code, lambda _, row: logits.append(row) or code)
            return [*logits, self.talker.embed_frames(codes)]

        with kernels.using(self.fused):
            return mx.compile(predict)(self.hidden(), code)


def measure(size, bits=None, repeats=20, fused=()):
    """Totals of "talker", "predictor", "sampling" and "frame", a frame's Counter, the median milliseconds to build it.

    fused: the names of the fused kernels in use.
    """
    with for_gpu():
        graph = FrameGraph(*blank_talker(size, bits), fused=fused)
        counts = {"talker": count(*graph.talker_step()), "predictor": count(*graph.predictor())}
        frame, _ = graph.frame()  # compiles
        counts["frame"] = count(*frame)
        counts["sampling"] = counts["frame"] - counts["talker"] - counts["predictor"]
        # What is fused has another name in the part than in the whole, so the difference is in the totals alone.
        build = statistics.median(graph.frame()[1] for _ in range(repeats))
    totals = {name: counter.total() for name, counter in counts.items()}
    totals["sampling"] = totals["frame"] - totals["talker"] - totals["predictor"]
    return totals, counts["frame"], build


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--bits", type=int, choices=(4, 6, 8), help="of quantised linear layers (default: plain)")
    parser.add_argument("--kernels", choices=("plain", "fused"), default="plain", help="(default: plain)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    from benchmarks import gate  # which is made of what is above

    fused = kernels.NAMES if options.kernels == "fused" else ()
    totals, where, build = measure(options.size, options.bits, fused=fused)
    what = f"{options.size}{f', {options.bits} bit' if options.bits else ''}, {options.kernels} kernels"
    print(f"{what}: nodes that compute, a frame")
    print(f"{'':12}{'talker':>10}{'predictor':>11}{'sampling':>10}{'frame':>8}")
    print(f"{'here':12}{totals['talker']:>10}{totals['predictor']:>11}{totals['sampling']:>10}{totals['frame']:>8}")
    print(f"{'mlx-audio':12}{667:>10}{2081:>11}{'':>10}{'> 2748':>8}")
    print(f"Python takes {build:.2f} ms to build a frame's graph (mlx-audio: 4 to 6)")
    for name, number in where.most_common():
        print(f"{number:7} {name}")
    lines, costs = gate.report()
    print("\n".join(["", *lines]))
    if options.json:
        rows = [{"rows": rows, "with": name, **asdict(cost)} for (rows, name), cost in costs.items()]
        parts = ("talker", "predictor", "sampling", "frame")
        print(json.dumps({**{name: totals[name] for name in parts}, "gate": rows}))


if __name__ == "__main__":
    main()
