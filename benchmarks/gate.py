"""What a frame of speech may cost: the gate against regressions in what decides the speed on a GPU.

Counted and not timed, so that it says the same on every machine: kernels, host waits, bytes and Python calls a frame,
at 0.6B in bfloat16, for one row and for eight, plain and with what can be switched on. `tests/test_gate.py` holds
LIMITS; `python -m benchmarks.nodes` prints the table, which stands in benchmarks/README.md too.
"""

import collections
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from unittest import mock

import mlx.core as mx
import mlx.nn as nn

from benchmarks import nodes
from benchmarks.measure import nbytes
from benchmarks.waits import ENQUEUE, watched
from mlx_qwen3tts.checkpoint import adapters
from mlx_qwen3tts.networks import kernels
from mlx_qwen3tts.networks.linear import Linear
from mlx_qwen3tts.networks.transformer import DecoderLayer, RMSNorm
from mlx_qwen3tts.synthesis.loop import Generation
from mlx_qwen3tts.synthesis.morph import Morph
from mlx_qwen3tts.synthesis.watch import Letters, Watch

SIZE, PLAIN = "0.6b", "plain"
FRAMES = 3  # in which waits are counted
RANK = 8  # of an adapter


@dataclass(frozen=True)
class Cost:
    """Of a frame. kernels: nodes of its graph that compute; waits: of the host for the device; read: bytes of weights
    and of cached keys and values; calls: of Python functions, to build the graph; ms: in which Python builds it, for
    the record, as no test can hold it."""

    kernels: int
    waits: int
    read: int
    calls: int
    ms: float


def change_voice(graph: nodes.FrameGraph, generation: Generation) -> None:
    """Let the last row's voice change with every frame."""
    row, vector = generation.rows[-1], nodes.blank((graph.width,), mx.float32)
    row.morph = Morph(graph.talker, row.prompt, lambda _: vector)


def fuse(graph: nodes.FrameGraph, generation: Generation) -> None:
    """Make frames with the fused kernels."""
    generation.steps.kernels = frozenset(kernels.NAMES)


def guard(graph: nodes.FrameGraph, generation: Generation) -> None:
    """Watch every row for speech that goes wrong."""
    for row in generation.rows:
        row.watch = Watch(row.prompt.text, Letters("Hello."), frozenset())


def adapt(graph: nodes.FrameGraph, generation: Generation) -> None:
    """Speak with an adapter as `tune lora` makes it: rank 8, on q and v of every layer."""
    matrices = {}
    for name, site in adapters.sites(generation.talker).items():
        if name.endswith(("q_proj", "v_proj")):
            shapes = (site.place.inputs, RANK), (RANK, site.place.last - site.place.first)
            a, b = (nodes.blank(shape, graph.talker.dtype) for shape in shapes)
            matrices[name] = a, b
    adapters.put(generation.talker, matrices, 2.0)
    mx.eval(generation.talker.parameters())


# What can be switched on: name to a function that does so for a generation. A line here is a row for each batch size.
ADDITIONS: dict[str, Callable[[nodes.FrameGraph, Generation], None] | None] = {
    PLAIN: None,
    "fused kernels": fuse,
    "one voice changes": change_voice,
    "guard": guard,
    "adapter": adapt,
}
ROWS = (1, 8)
# As measured last. The test holds kernels and waits to at most this, bytes to exactly this, and calls to ROOM times
# this, since versions of Python differ in what they call.
LIMITS = {
    (1, PLAIN): Cost(1460, 1, 3_324_741_632, 1135, 2.7),
    (1, "fused kernels"): Cost(1029, 1, 3_324_741_632, 1167, 2.6),
    (1, "one voice changes"): Cost(1821, 1, 4_206_866_432, 2303, 3.7),
    (1, "guard"): Cost(1460, 1, 3_324_741_632, 1135, 2.7),
    (1, "adapter"): Cost(1666, 1, 3_341_617_152, 1303, 4.6),
    (8, PLAIN): Cost(1462, 1, 3_425_179_648, 1151, 2.5),
    (8, "fused kernels"): Cost(1031, 1, 3_425_179_648, 1183, 3.3),
    (8, "one voice changes"): Cost(1851, 1, 4_307_304_448, 2488, 3.6),
    (8, "guard"): Cost(1462, 1, 3_425_179_648, 1151, 2.5),
    (8, "adapter"): Cost(1668, 1, 3_442_055_168, 1319, 4.0),
}
ROOM = 1.15


@contextlib.contextmanager
def counted_bytes() -> Iterator[collections.Counter[str]]:
    """Counts, within the block, what is read by the layers that are called and by attention: "weights", "cache".

    In a compiled function this is so only when it is traced, which is when it is first called.
    """
    found: collections.Counter[str] = collections.Counter()
    depth = 0

    def counting(original):
        def called(self, *arguments, **options):
            nonlocal depth
            found["weights"] += 0 if depth else nbytes(self)
            depth += 1
            try:
                return original(self, *arguments, **options)
            finally:
                depth -= 1

        return called

    attention = mx.fast.scaled_dot_product_attention

    def attend(q, k, v, **options):
        found["cache"] += k.nbytes + v.nbytes
        return attention(q, k, v, **options)

    with contextlib.ExitStack() as stack:
        for kind in (DecoderLayer, Linear, nn.QuantizedLinear, RMSNorm):
            stack.enter_context(mock.patch.object(kind, "__call__", counting(kind.__call__)))
        stack.enter_context(mock.patch.object(mx.fast, "scaled_dot_product_attention", attend))
        yield found


def python_calls(work: Callable[[], object]) -> int:
    """How many calls of Python functions a piece of work makes."""
    count, before = 0, sys.getprofile()

    def note(_, event, __):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def waits(rows: int, addition: str) -> int:
    """How often the host waits a frame, of a tiny model that really runs; uncompiled, which changes no wait."""
    mx.disable_compile()
    try:
        with nodes.for_gpu():
            graph = nodes.FrameGraph(*nodes.blank_talker("tiny"), rows=rows)
            generation = begun(graph, addition)
            generation.step()  # puts two frames under way
            with watched() as events:
                for _ in range(FRAMES):
                    assert generation.step() is not None, "the speech has ended"
    finally:
        mx.enable_compile()
    total = sum(event != ENQUEUE for event in events)
    return -(-total // FRAMES)


def begun(graph: nodes.FrameGraph, addition: str) -> Generation:
    """A generation in the middle of speech, with what was asked for switched on."""
    generation, switch = graph.generation(), ADDITIONS[addition]
    if switch:
        switch(graph, generation)
    return generation


def measure(rows: int, addition: str, size: str = SIZE, repeats: int = 20) -> tuple[Cost, collections.Counter[str]]:
    """What a frame costs, and its kernels by name."""
    with nodes.for_gpu():
        graph = nodes.FrameGraph(*nodes.blank_talker(size), rows=rows)
        with counted_bytes() as found:
            graph.frame(begun(graph, addition))  # traces what is compiled
        enqueued, _ = graph.frame(begun(graph, addition))
        counted = nodes.count(*enqueued)
        generation = begun(graph, addition)
        graph.frame(generation)  # what is done once for many frames is done
        with mock.patch.object(mx, "async_eval", lambda *_: None):
            calls = python_calls(generation.enqueue)
        ms = min(graph.frame(generation)[1] for _ in range(repeats))
    return Cost(counted.total(), waits(rows, addition), found.total(), calls, ms), counted


def base(rows: int, addition: str) -> tuple[int, str]:
    """The row that another one is compared with: what adds something with its plain row, more rows with one."""
    return (rows, PLAIN) if addition != PLAIN else (ROWS[0], PLAIN)


def table(costs: Mapping[tuple[int, str], Cost]) -> list[str]:
    """The lines of a Markdown table, what each row adds to its base in brackets."""
    lines = [
        "| rows | with | kernels | host waits | MB read | Python calls | Python builds it in |",
        "|---|---|---|---|---|---|---|",
    ]
    for (rows, addition), cost in costs.items():
        plain = costs[base(rows, addition)]

        def more(value: int, before: int, first: bool = cost is plain) -> str:
            return f"{value}" if first else f"{value} ({value - before:+d})"

        read = more(round(cost.read / 1e6), round(plain.read / 1e6))
        lines.append(
            f"| {rows} | {addition} | {more(cost.kernels, plain.kernels)} | {cost.waits} | {read} | "
            f"{more(cost.calls, plain.calls)} | {cost.ms:.1f} ms |"
        )
    return lines


def report() -> tuple[list[str], dict[tuple[int, str], Cost]]:
    """(the table as measured now, and below it the kernels that each row adds by name; the costs)."""
    costs, counted = {}, {}
    for case in ((rows, addition) for rows in ROWS for addition in ADDITIONS):
        costs[case], counted[case] = measure(*case)
    lines = table(costs)
    for case in costs:
        (rows, addition), of = case, base(*case)
        if of != case:
            for what, more in (("adds", counted[case] - counted[of]), ("saves", counted[of] - counted[case])):
                named = ", ".join(f"{number} {name}" for name, number in more.most_common())
                lines += [f"{rows}, {addition}, {what}: {named}"] * bool(named)
    return lines, costs
