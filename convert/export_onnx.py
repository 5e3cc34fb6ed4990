"""Write a checkpoint's speaker encoder as ONNX, for runtimes other than MLX, the browser's among them. No torch.

    python -m convert.export_onnx --model M --output DIR [--int8] [--audio WAV ...] [--json]

M is a Base model in any of its forms or a standalone encoder. DIR gets `speaker_encoder.onnx`, which takes a recording,
and `speaker_encoder_mel.onnx`, which takes its log-mel spectrogram. Both give the vector that `embed` gives: they have
been run in onnxruntime and compared with it when they are written. With --int8 `speaker_encoder_int8.onnx` comes beside
them, its weights in 8 bits, and what that costs on the recordings of --audio is told.

The graph is the network of `mlx_qwen3tts.networks.speaker`, under the published tensor names. ONNX has channels before
time: T frames, C channels, [1, C, T].
"""

import contextlib
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import __version__, cli
from mlx_qwen3tts.audio.reading import LONGEST, read_audio
from mlx_qwen3tts.audio.reference import check_reference
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.speaker import load_encoder_alone
from mlx_qwen3tts.errors import InvalidValue, MissingExtra
from mlx_qwen3tts.files.output import check_folder, check_writable, whole_file
from mlx_qwen3tts.networks.speaker import mel

EXAMPLES = """\
  python -m convert.export_onnx --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --output onnx
  python -m convert.export_onnx --model mlx_model --output onnx --int8 --audio speakers/*.wav
"""
WAVEFORM, MEL, INT8 = "speaker_encoder.onnx", "speaker_encoder_mel.onnx", "speaker_encoder_int8.onnx"

# Nothing here needs a later opset, and every onnxruntime that has a WebGPU provider knows this one. IR 8 came with it.
OPSET, IR = 17, 8

COSINE, ERROR = 0.99999, 1e-4  # to our vector: at least, and relative at most; else nothing is written
SLICE, ENOUGH = 3, 4  # seconds of a slice of a recording; slices without which an 8-bit loss says little
END = 2**63 - 1  # of a Slice without end
MEL_RECIPE = (
    f"Its log-mel spectrogram: reflect padding {(mel.FFT - mel.HOP) // 2}, periodic Hann window {mel.FFT}, hop "
    f"{mel.HOP}, sqrt(re^2 + im^2 + 1e-9), Slaney bands and norm up to {mel.TOP_HZ} Hz, ln(max(x, 1e-5))."
)


class Graph:
    """Operators and constants of an ONNX graph in the making. A value goes by its name, which the methods return."""

    def __init__(self, int8=False):
        """int8: whether `conv` stores its weights in 8 bits."""
        self.int8, self.nodes, self.constants = int8, [], {}

    def node(self, kind, *inputs, output=None, **attributes):
        """Add an operator with one output."""
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append((kind, inputs, [output], attributes))
        return output

    def split(self, x, parts):
        """The channels of x in `parts` equal groups."""
        outputs = [f"Split_{len(self.nodes)}_{i}" for i in range(parts)]
        self.nodes.append(("Split", [x], outputs, {"axis": 1}))
        return outputs

    def constant(self, name, value, kind=np.float32):
        """Name an array. The same numbers have the same name, and are there once however often they are asked for."""
        self.constants[name] = np.asarray(value, kind)
        return name

    def number(self, value):
        return self.constant(f"number {value:g}", value)

    def integers(self, *values):
        return self.constant(f"integers {values}", values, np.int64)

    def at_least(self, x, axis, shape, what):
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

    def reflect(self, x, pad):
        """Mirror `pad` positions at both ends of [1, C, T] without repeating the edge."""
        if pad == 0:
            return x
        # The number plays no part in reflecting, but onnxruntime's WebGPU provider reads it unasked.
        return self.node("Pad", x, self.integers(0, 0, pad, 0, 0, pad), self.number(0), mode="reflect")

    def conv(self, x, name, weight, bias=None, dilation=1):
        """Convolution without padding. weight: [out, kernel, in], as here; ONNX has [out, in, kernel]."""
        weight = np.ascontiguousarray(weight.transpose(0, 2, 1))
        inputs = [x, self.weight(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        return self.convolve(inputs, weight.shape[2], 1, dilation)

    def weight(self, name, value):
        """A convolution's weight [out, in, kernel]; in 8 bits it is symmetric, with a scale for every output channel.

        Weights alone: integer activations lose more here, calibrated or dynamic, and the WebGPU provider lacks them.
        """
        if not self.int8:
            return self.constant(name, value)
        scale = np.maximum(np.abs(value).max(axis=(1, 2)) / 127, 1e-12)
        rounded = self.constant(name, np.round(value / scale[:, None, None]), np.int8)
        return self.node("DequantizeLinear", rounded, self.constant(f"{name}.scale", scale), axis=0)

    def fourier(self, x):
        """[1, 1, samples] to the real parts [1, FFT / 2 + 1, T] and the imaginary ones of its windowed spectrum.

        A convolution with sines and cosines, as browsers have no operator for the transform.
        """
        # Modulo the period while the phase is whole: exact, which floats would not be.
        phase = np.outer(np.arange(mel.FFT // 2 + 1), np.arange(mel.FFT)) % mel.FFT * (2 * np.pi / mel.FFT)
        kernels = np.concatenate([np.cos(phase), np.sin(phase)]) * mel.window()
        return self.split(self.convolve([x, self.constant("fourier", kernels[:, None])], mel.FFT, mel.HOP, 1), 2)

    def convolve(self, inputs, kernel, stride, dilation):
        """The operator itself, with every attribute spelled out for runtimes that guess none."""
        return self.node("Conv", *inputs, kernel_shape=[kernel], strides=[stride], dilations=[dilation], pads=[0, 0])

    def model(self, given, dimension, text, metadata):
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


def _conv(graph, x, conv, name):
    return graph.conv(x, name, np.array(conv.weight), np.array(conv.bias), conv.dilation)


def _tdnn(graph, x, tdnn, name):
    return graph.node("Relu", _conv(graph, graph.reflect(x, tdnn.conv.span // 2), tdnn.conv, f"{name}.conv"))


def _res2net(graph, x, net, name):
    first, second, *rest = graph.split(x, len(net.blocks) + 1)
    outputs = [first, _tdnn(graph, second, net.blocks[0], f"{name}.blocks.0")]
    for i, part in enumerate(rest, 1):
        outputs.append(_tdnn(graph, graph.node("Add", part, outputs[-1]), net.blocks[i], f"{name}.blocks.{i}"))
    return graph.node("Concat", *outputs, axis=1)


def _squeeze_excitation(graph, x, block, name):
    mean = graph.node("ReduceMean", x, axes=[2])
    squeezed = graph.node("Relu", _conv(graph, mean, block.conv1, f"{name}.conv1"))
    return graph.node("Mul", x, graph.node("Sigmoid", _conv(graph, squeezed, block.conv2, f"{name}.conv2")))


def _se_res2_block(graph, x, block, name):
    y = _tdnn(graph, x, block.tdnn1, f"{name}.tdnn1")
    y = _res2net(graph, y, block.res2net_block, f"{name}.res2net_block")
    y = _tdnn(graph, y, block.tdnn2, f"{name}.tdnn2")
    return graph.node("Add", _squeeze_excitation(graph, y, block.se_block, f"{name}.se_block"), x)


def _statistics(graph, x, weights=None):
    """Mean and standard deviation over time, [1, C, 1] each; weights [1, C, T] sum to 1, None are equal ones."""

    def mean_of(y):
        if weights is None:
            return graph.node("ReduceMean", y, axes=[2])
        return graph.node("ReduceSum", graph.node("Mul", weights, y), graph.integers(2))

    mean = mean_of(x)
    away = graph.node("Sub", x, mean)
    variance = graph.node("Clip", mean_of(graph.node("Mul", away, away)), graph.number(1e-12))
    return mean, graph.node("Sqrt", variance)


def _attentive_statistics(graph, x, pool, name):
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


def _encoder(graph, x, encoder):
    """Log-mel frames [1, bands, T] to `speaker_embedding` [D]."""
    outputs = [_tdnn(graph, x, encoder.blocks[0], "blocks.0")]
    for i, block in enumerate(encoder.blocks[1:], 1):
        outputs.append(_se_res2_block(graph, outputs[-1], block, f"blocks.{i}"))
    x = _tdnn(graph, graph.node("Concat", *outputs[1:], axis=1), encoder.mfa, "mfa")
    vector = _conv(graph, _attentive_statistics(graph, x, encoder.asp, "asp"), encoder.fc, "fc")
    graph.node("Squeeze", vector, graph.integers(0, 2), output="speaker_embedding")


def _log_mel(graph, waveform, bands):
    """[samples] to [1, bands, T], as networks/speaker/mel.py."""
    x = graph.reflect(graph.node("Unsqueeze", waveform, graph.integers(0, 1)), (mel.FFT - mel.HOP) // 2)
    real, imaginary = (graph.node("Mul", part, part) for part in graph.fourier(x))
    power = graph.node("Add", graph.node("Add", real, imaginary), graph.number(1e-9))
    filters = graph.constant("mel filters", mel.filterbank(bands))
    heard = graph.node("MatMul", filters, graph.node("Sqrt", power))
    return graph.node("Log", graph.node("Clip", heard, graph.number(1e-5)))


def build(encoder, source, from_mel=False, int8=False):
    """A SpeakerEncoder as an ONNX ModelProto. source: its checkpoint's name, for the metadata.

    The waveform has no batch axis: recordings differ in length, which the network has no mask for.
    """
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


# The command.


def build_parser():
    options = cli.Parser(
        prog="python -m convert.export_onnx",
        description="Write a checkpoint's speaker encoder as ONNX.",
        epilog=f"examples:\n{EXAMPLES}",
    )
    cli.add_model(options)
    options.add_argument("--output", required=True, metavar="DIR", help="folder to write to, made if need be")
    options.add_argument("--int8", action="store_true", help="write it with 8-bit weights too; needs --audio")
    options.add_argument(
        "--audio", nargs="+", default=[], metavar="WAV", help="recordings to compare on, 0.5 to 60 s each"
    )
    cli.add_json(options)
    return options


def main(arguments=None):
    cli.run(export, build_parser().parse_args(arguments))


def _runtime():
    try:
        import onnx  # noqa: F401, needed later
        import onnxruntime
    except ModuleNotFoundError as missing:
        raise MissingExtra(f"the export needs {missing.name}: pip install '.[onnx]'") from None
    return onnxruntime


def read_slices(files):
    """Recordings in slices of SLICE seconds, what is left over dropped, a shorter one whole: [samples] float32 each."""
    length, slices = SLICE * mel.SAMPLE_RATE, []
    for file in files:
        samples = read_audio(file, mel.SAMPLE_RATE, LONGEST)
        check_reference(samples, mel.SAMPLE_RATE, f"audio {file}")
        slices += [samples[i : i + length] for i in range(0, samples.size - length + 1, length)] or [samples]
    return slices


def made_up():
    """SLICE seconds of a hum with a little noise."""
    time = np.arange(SLICE * mel.SAMPLE_RATE) / mel.SAMPLE_RATE
    noise = np.random.RandomState(0).uniform(-0.01, 0.01, time.size)
    return (0.3 * np.sin(2 * np.pi * 150 * time) * np.sin(2 * np.pi * 3 * time) + noise).astype(np.float32)


def cosine(a, b):
    """Of the rows of [N, D] and [N, D]: [N]."""
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def check(ours, theirs, name):
    """How close vectors [N, D] of onnxruntime are to ours; ValueError where they are not the same."""
    figures = {
        "cosine": float(cosine(ours, theirs).min()),
        "relative_error": float((np.linalg.norm(theirs - ours, axis=1) / np.linalg.norm(ours, axis=1)).max()),
        "largest_difference": float(np.abs(theirs - ours).max()),
    }
    if not (figures["cosine"] >= COSINE and figures["relative_error"] <= ERROR):  # so that NaN fails too
        shown = f"cosine {figures['cosine']:.6f}, relative error {figures['relative_error']:.1e}"
        raise InvalidValue(f"{name} does not give our vectors in onnxruntime: {shown}; nothing is written")
    return figures


def loss(full, small):
    """Cosines of vectors [N, D] to those of fewer bits, mean and lowest: raw, and centred by the mean of `full`.

    The raw cosine flatters: a mean that all voices share carries 97 % of a vector's norm.
    """
    mean = full.mean(axis=0)
    if np.linalg.norm(full - mean, axis=1).min() < 1e-6 * np.linalg.norm(mean):
        raise InvalidValue("--audio: the recordings are the same, which does not show what 8 bits cost; give others")
    figures = {}
    for name, cosines in (("raw", cosine(full, small)), ("centred", cosine(full - mean, small - mean))):
        figures |= {name: float(cosines.mean()), f"{name}_lowest": float(cosines.min())}
    return figures


def export(options):
    check_folder(options.output, "--output")
    target = Path(options.output)
    for name in (WAVEFORM, MEL, INT8) if target.is_dir() else ():
        check_writable(target / name)
    runtime, slices = _runtime(), read_slices(options.audio)
    if options.int8 and len(slices) < ENOUGH:
        raise InvalidValue(f"--int8 needs {ENOUGH} recordings or slices of {SLICE} s in --audio, not {len(slices)}")
    folder = hub.resolve(options.model, hub.ALONE)
    encoder, _ = load_encoder_alone(folder)

    def run(model, name, inputs):
        session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return np.array([session.run(None, {name: given})[0] for given in inputs], np.float64)

    heard = slices or [made_up()]
    heard = [*heard, heard[0][: encoder.shortest[1]]]  # reflection goes wrong first where there is least
    spectra = [np.array(mel.log_mel(mx.array(samples), encoder.bands))[None] for samples in heard]
    ours = np.array([encoder.embed(mx.array(samples)) for samples in heard], np.float64)
    files, result, notes = {}, {"output": [], "dimension": ours.shape[1]}, {}
    for name, given, inputs in ((WAVEFORM, "waveform", heard), (MEL, "mel", spectra)):
        files[name] = build(encoder, folder.name, from_mel=name == MEL).SerializeToString()
        result[name] = same = check(ours, run(files[name], given, inputs), name)
        notes[name] = f"cosine to ours {same['cosine']:.7f}, largest difference {same['largest_difference']:.1e}"
    if options.int8:
        files[INT8] = build(encoder, folder.name, int8=True).SerializeToString()
        result[INT8] = cost = loss(ours[:-1], run(files[INT8], "waveform", slices)) | {"slices": len(slices)}
        raw, centred = (f"{cost[k]:.5f} {k} (lowest {cost[f'{k}_lowest']:.5f})" for k in ("raw", "centred"))
        notes[INT8] = f"cosine to float32 over {len(slices)} slices {raw}, {centred}"
    target.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        for name, data in files.items():
            stack.enter_context(whole_file(target / name)).write_bytes(data)
    for name, data in files.items():
        result["output"].append(str(target / name))
        cli.note(f"{target / name}: {len(data) / 1e6:.1f} MB, {notes[name]}")
    if options.json:
        cli.print_json(result)


if __name__ == "__main__":
    main()
