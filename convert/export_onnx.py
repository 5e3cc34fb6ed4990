"""Write a checkpoint's speaker encoder as ONNX, for runtimes other than MLX, the browser's among them. No torch.

    python -m convert.export_onnx --model M --output DIR [--int8] [--audio WAV ...] [--json]

M is a Base model in any of its forms or a standalone encoder. DIR gets `speaker_encoder.onnx`, which takes a recording,
and `speaker_encoder_mel.onnx`, which takes its log-mel spectrogram. Both give the vector that `embed` gives: they have
been run in onnxruntime and compared with it when they are written. With --int8 `speaker_encoder_int8.onnx` comes beside
them, its weights in 8 bits, and what that costs on the recordings of --audio is told.

The graph is made in `mlx_qwen3tts.checkpoint.speaker_onnx`.
"""

import contextlib
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import cli
from mlx_qwen3tts.audio.reading import LONGEST, read_audio
from mlx_qwen3tts.audio.reference import check_reference
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.speaker import load_encoder_alone
from mlx_qwen3tts.checkpoint.speaker_onnx import build
from mlx_qwen3tts.errors import InvalidValue, MissingExtra
from mlx_qwen3tts.files.output import check_folder, check_writable, whole_file
from mlx_qwen3tts.networks.speaker import mel

EXAMPLES = """\
  python -m convert.export_onnx --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --output onnx
  python -m convert.export_onnx --model mlx_model --output onnx --int8 --audio speakers/*.wav
"""
WAVEFORM, MEL, INT8 = "speaker_encoder.onnx", "speaker_encoder_mel.onnx", "speaker_encoder_int8.onnx"

COSINE, ERROR = 0.99999, 1e-4  # to our vector: at least, and relative at most; else nothing is written
SLICE, ENOUGH = 3, 4  # seconds of a slice of a recording; slices without which an 8-bit loss says little


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
