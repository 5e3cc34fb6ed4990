"""`mlx_qwen3tts.demo`: the whole way on a made-up checkpoint, offline: convert, embed two voices, blend, speak.

The checkpoint is random, so what it speaks is noise; every step is the one that a published checkpoint goes through.
"""

from pathlib import Path

from . import cli

TEXT = "Hello, this is my voice."


def build_parser():
    options = cli.parser("demo", __doc__.split(": ", 1)[1])
    options.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="(default: demo)")
    return options


def main(arguments=None):
    cli.run(demo, build_parser().parse_args(arguments))


def synthesise(path, pitch, brightness):
    """Three seconds of a made-up voice: harmonics of a wandering pitch in syllables, at 24 kHz."""
    import numpy as np

    from .files.audio import write_audio

    time = np.arange(3 * 24000) / 24000
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.05 * np.sin(2 * np.pi * 2 * time))) / 24000
    tone = sum(np.sin(k * phase) * k**-brightness for k in range(1, 20))
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)
    write_audio(path, (0.2 * syllables * tone).astype(np.float32), 24000)


def demo(options):
    from . import convert, embed, generate
    from .random_checkpoint import write_checkpoint
    from .voices.voice import Voice

    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    source, model = folder / "checkpoint", folder / "mlx_model"
    cli.note("1. A random checkpoint in the published layout. It makes noise: nothing in it has been trained.")
    write_checkpoint(source, seed=1, eos_gain=2.2)
    cli.note(f"2. mlx_qwen3tts.convert --hf-path {source} --mlx-path {model}")
    convert.main(["--hf-path", str(source), "--mlx-path", str(model), "--overwrite"])
    cli.note("3. Two made-up voices, low and high, each embedded to one vector.")
    vectors = []
    for name, pitch, brightness in (("low", 100, 1.6), ("high", 220, 0.9)):
        recording, vector = folder / f"{name}.wav", folder / f"{name}.npy"
        synthesise(recording, pitch, brightness)
        embed.main(["--model", str(model), str(recording), "--output", str(vector)])
        vectors.append(Voice.load(vector).embedding)
    blend = folder / "blend.npy"
    cli.note(f"4. Half of each: {blend}")
    Voice(0.5 * vectors[0] + 0.5 * vectors[1]).save(blend)
    speech = folder / "blend.wav"
    cli.note(f'5. mlx_qwen3tts.generate --model {model} --embedding {blend} --output {speech} "{TEXT}"')
    arguments = ["--model", str(model), "--embedding", str(blend), "--output", str(speech), "--seed", "1", TEXT]
    generate.main(arguments)
    cli.note("The speech is noise, as the weights are random. Convert a published checkpoint to hear a voice.")
    for file in (blend, speech):  # after the model, which convert has printed
        print(file)


if __name__ == "__main__":
    main()
