"""A speaker encoder as an ONNX graph, for runtimes other than MLX, the browser's among them.

The graph is the network of `networks.speaker`, under the published tensor names. ONNX has channels before time: T
frames, C channels, [1, C, T].
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .. import __version__
from ..errors import MissingExtra, install_hint
from ..networks.conv import Conv1d
from ..networks.speaker import mel
from ..networks.speaker.encoder import (
    TDNN,
    AttentiveStatistics,
    Res2Net,
    SERes2Block,
    SpeakerEncoder,
    SqueezeExcitation,
)

if TYPE_CHECKING:
    import onnx

# Nothing here needs a later opset, and every onnxruntime that has a WebGPU provider knows this one. IR 8 came with it.
OPSET, IR = 17, 8

END = 2**63 - 1  # of a Slice without end
MEL_RECIPE = (
    f"Its log-mel spectrogram: reflect padding {(mel.FFT - mel.HOP) // 2}, periodic Hann window {mel.FFT}, hop "
    f"{mel.HOP}, sqrt(re^2 + im^2 + 1e-9), Slaney bands and norm up to {mel.TOP_HZ} Hz, ln(max(x, 1e-5))."
)


class Graph:
    """Operators and constants of an ONNX graph in the making. A value goes by its name, which the methods return."""

    def __init__(self, int8: bool = False) -> None:
        """int8: whether `conv` stores its weights in 8 bits."""
        self.int8 = int8
        self.nodes: list[tuple[str, tuple[str, ...], list[str], dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add an operator with one output."""
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append((kind, inputs, [output], attributes))
        return output

    def split(self, x: str, parts: int) -> list[str]:
        """The channels of x in `parts` equal groups."""
        outputs = [f"Split_{len(self.nodes)}_{i}" for i in range(parts)]
        self.nodes.append(("Split", (x,), outputs, {"axis": 1}))
        return outputs

    def constant(self, name: str, value: ArrayLike, kind: type = np.float32) -> str:
        """Name an array. The same numbers have the same name, and are there once however often they are asked for."""
        self.constants[name] = np.asarray(value, kind)
        return name

    def number(self, value: float) -> str:
        return self.constant(f"number {value:g}", value)

    def integers(self, *values: int) -> str:
        return self.constant(f"integers {values}", values, np.int64)

    def at_least(self, x: str, axis: int, shape: tuple[int, ...], what: str) -> str:
        """x as it is, but an error naming `what` where it is shorter along `axis` than in `shape`.

        Reflection reads beyond a tensor that is too short: onnxruntime's WebGPU provider says nothing and gives a wrong
        vector, as the CPU's did before microsoft/onnxruntime#27652. ONNX has no assertion, but Reshape fails for want
        of elements, and its error tells the operator's name.
        """
        along = self.integers(axis)
        head = self.node("Slice", x, self.integers(0), self.integers(shape[axis]), along)
        head = self.node("Reshape", head, self.integers(*shape), output=f"at least {shape[axis]} {what}")
        first = self.node("Slice", head, self.integers(0), self.integers(1), along)
        return self.node("Concat", first, self.node("Slice", x, self.integers(1), self.integers(END), along), axis=axis)

    def reflect(self, x: str, pad: int) -> str:
        """Mirror `pad` positions at both ends of [1, C, T] without repeating the edge."""
        if pad == 0:
            return x
        # The number plays no part in reflecting, but onnxruntime's WebGPU provider reads it unasked.
        return self.node("Pad", x, self.integers(0, 0, pad, 0, 0, pad), self.number(0), mode="reflect")

    def conv(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray | None = None, dilation: int = 1) -> str:
        """Convolution without padding. weight: [out, kernel, in], as here; ONNX has [out, in, kernel]."""
        weight = np.ascontiguousarray(weight.transpose(0, 2, 1))
        inputs = [x, self.weight(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        return self.convolve(inputs, weight.shape[2], 1, dilation)

    def weight(self, name: str, value: np.ndarray) -> str:
        """A convolution's weight [out, in, kernel]; in 8 bits it is symmetric, with a scale for every output channel.

        Weights alone: integer activations lose more here, calibrated or dynamic, and the WebGPU provider lacks them.
        """
        if not self.int8:
            return self.constant(name, value)
        scale = np.maximum(np.abs(value).max(axis=(1, 2)) / 127, 1e-12)
        rounded = self.constant(name, np.round(value / scale[:, None, None]), np.int8)
        return self.node("DequantizeLinear", rounded, self.constant(f"{name}.scale", scale), axis=0)

    def fourier(self, x: str) -> list[str]:
        """[1, 1, samples] to the real parts [1, FFT / 2 + 1, T] and the imaginary ones of its windowed spectrum.

        A convolution with sines and cosines, as browsers have no operator for the transform.
        """
        # Modulo the period while the phase is whole: exact, which floats would not be.
        phase = np.outer(np.arange(mel.FFT // 2 + 1), np.arange(mel.FFT)) % mel.FFT * (2 * np.pi / mel.FFT)
        kernels = np.concatenate([np.cos(phase), np.sin(phase)]) * mel.window()
        return self.split(self.convolve([x, self.constant("fourier", kernels[:, None])], mel.FFT, mel.HOP, 1), 2)

    def convolve(self, inputs: list[str], kernel: int, stride: int, dilation: int) -> str:
        """The operator itself, with every attribute spelled out for runtimes that guess none."""
        return self.node("Conv", *inputs, kernel_shape=[kernel], strides=[stride], dilations=[dilation], pads=[0, 0])

    def model(
        self, given: tuple[str, list[Any]], dimension: int, text: str, metadata: dict[str, str]
    ) -> onnx.ModelProto:
        """The checked ModelProto. given: (name, shape) of the input; the output is `speaker_embedding` [dimension]."""
        from onnx import TensorProto, checker, helper, numpy_helper

        model = helper.make_model(
            helper.make_graph(
                [helper.make_node(kind, *ends, name=ends[1][0], **rest) for kind, *ends, rest in self.nodes],
                "speaker_encoder",
                [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
                [helper.make_tensor_value_info("speaker_embedding", TensorProto.FLOAT, [dimension])],
                [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR,
            producer_name="mlx_qwen3tts",
            producer_version=__version__,
            doc_string=text,
        )
        helper.set_model_props(model, metadata)
        checker.check_model(model, full_check=True)
        return model


# The network, a function for each of the modules in networks/speaker/encoder.py. `name` is the module's published name.


def _conv(graph: Graph, x: str, conv: Conv1d, name: str) -> str:
    return graph.conv(x, name, np.array(conv.weight), np.array(conv.bias), conv.dilation)


def _tdnn(graph: Graph, x: str, tdnn: TDNN, name: str) -> str:
    return graph.node("Relu", _conv(graph, graph.reflect(x, tdnn.conv.span // 2), tdnn.conv, f"{name}.conv"))


def _res2net(graph: Graph, x: str, net: Res2Net, name: str) -> str:
    first, second, *rest = graph.split(x, len(net.blocks) + 1)
    outputs = [first, _tdnn(graph, second, net.blocks[0], f"{name}.blocks.0")]
    for i, part in enumerate(rest, 1):
        outputs.append(_tdnn(graph, graph.node("Add", part, outputs[-1]), net.blocks[i], f"{name}.blocks.{i}"))
    return graph.node("Concat", *outputs, axis=1)


def _squeeze_excitation(graph: Graph, x: str, block: SqueezeExcitation, name: str) -> str:
    mean = graph.node("ReduceMean", x, axes=[2])
    squeezed = graph.node("Relu", _conv(graph, mean, block.conv1, f"{name}.conv1"))
    return graph.node("Mul", x, graph.node("Sigmoid", _conv(graph, squeezed, block.conv2, f"{name}.conv2")))


def _se_res2_block(graph: Graph, x: str, block: SERes2Block, name: str) -> str:
    y = _tdnn(graph, x, block.tdnn1, f"{name}.tdnn1")
    y = _res2net(graph, y, block.res2net_block, f"{name}.res2net_block")
    y = _tdnn(graph, y, block.tdnn2, f"{name}.tdnn2")
    return graph.node("Add", _squeeze_excitation(graph, y, block.se_block, f"{name}.se_block"), x)


def _statistics(graph: Graph, x: str, weights: str | None = None) -> tuple[str, str]:
    """Mean and standard deviation over time, [1, C, 1] each; weights [1, C, T] sum to 1, None are equal ones."""

    def mean_of(y: str) -> str:
        if weights is None:
            return graph.node("ReduceMean", y, axes=[2])
        return graph.node("ReduceSum", graph.node("Mul", weights, y), graph.integers(2))

    mean = mean_of(x)
    away = graph.node("Sub", x, mean)
    variance = graph.node("Clip", mean_of(graph.node("Mul", away, away)), graph.number(1e-12))
    return mean, graph.node("Sqrt", variance)


def _attentive_statistics(graph: Graph, x: str, pool: AttentiveStatistics, name: str) -> str:
    """[1, C, T] to [1, 2C, 1].

    The attention sees x, its mean and its deviation side by side in every frame. Its first convolution has kernel 1, so
    each of the three can have a part of it and the results be added: nothing has to be repeated over all frames.
    """
    pieces = np.split(np.array(pool.tdnn.conv.weight), 3, axis=2)
    mean, deviation = _statistics(graph, x)
    hidden = graph.conv(x, f"{name}.tdnn.conv.frame", pieces[0], np.array(pool.tdnn.conv.bias))
    for part, piece, which in ((mean, pieces[1], "mean"), (deviation, pieces[2], "deviation")):
        hidden = graph.node("Add", hidden, graph.conv(part, f"{name}.tdnn.conv.{which}", piece))
    hidden = graph.node("Tanh", graph.node("Relu", hidden))
    weights = graph.node("Softmax", _conv(graph, hidden, pool.conv, f"{name}.conv"), axis=2)
    return graph.node("Concat", *_statistics(graph, x, weights), axis=1)


def _encoder(graph: Graph, x: str, encoder: SpeakerEncoder) -> None:
    """Log-mel frames [1, bands, T] to `speaker_embedding` [D]."""
    outputs = []
    for i, block in enumerate(encoder.blocks):
        if isinstance(block, TDNN):
            x = _tdnn(graph, x, block, f"blocks.{i}")
        else:
            x = _se_res2_block(graph, x, block, f"blocks.{i}")
        outputs.append(x)
    x = _tdnn(graph, graph.node("Concat", *outputs[1:], axis=1), encoder.mfa, "mfa")
    vector = _conv(graph, _attentive_statistics(graph, x, encoder.asp, "asp"), encoder.fc, "fc")
    graph.node("Squeeze", vector, graph.integers(0, 2), output="speaker_embedding")


def _log_mel(graph: Graph, waveform: str, bands: int) -> str:
    """[samples] to [1, bands, T], as networks/speaker/mel.py."""
    x = graph.reflect(graph.node("Unsqueeze", waveform, graph.integers(0, 1)), (mel.FFT - mel.HOP) // 2)
    real, imaginary = (graph.node("Mul", part, part) for part in graph.fourier(x))
    power = graph.node("Add", graph.node("Add", real, imaginary), graph.number(1e-9))
    filters = graph.constant("mel filters", mel.filterbank(bands))
    heard = graph.node("MatMul", filters, graph.node("Sqrt", power))
    return graph.node("Log", graph.node("Clip", heard, graph.number(1e-5)))


def build(encoder: SpeakerEncoder, source: str, from_mel: bool = False, int8: bool = False) -> onnx.ModelProto:
    """A SpeakerEncoder as an ONNX ModelProto. source: its checkpoint's name, for the metadata.

    The waveform has no batch axis: recordings differ in length, which the network has no mask for. MissingExtra where
    the package onnx is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtra(f"an ONNX model needs onnx: {install_hint('onnx')}")
    graph, dimension, (frames, samples) = Graph(int8), encoder.fc.weight.shape[0], encoder.shortest
    metadata = {"source_model": source, "dimension": str(dimension), "sample_rate": str(mel.SAMPLE_RATE)}
    if from_mel:
        given, least = ("mel", [1, "frames", encoder.bands]), ("frames", frames)
        x = graph.at_least("mel", 1, (1, frames, encoder.bands), "frames")
        x = graph.node("Transpose", x, perm=[0, 2, 1])
    else:
        given, least = ("waveform", ["samples"]), ("samples", samples)
        x = _log_mel(graph, graph.at_least("waveform", 0, (samples,), "samples"), encoder.bands)
    _encoder(graph, x, encoder)
    metadata[f"minimum_{least[0]}"] = str(least[1])
    text = f"Qwen3-TTS speaker encoder, {mel.SAMPLE_RATE} Hz mono, to the speaker's vector, not normalised. "
    return graph.model(given, dimension, text + MEL_RECIPE, metadata)
