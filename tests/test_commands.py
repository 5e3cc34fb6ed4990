"""The commands as users type them: exit statuses, what goes to stdout, what comes out in files, Ctrl-C."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import soundfile

import mlx_qwen3tts
from convert.parity import recording, vector
from mlx_qwen3tts import Qwen3TTS, Voice, cli, demo
from mlx_qwen3tts.audio.formats import FORMATS
from mlx_qwen3tts.audio.writing import audio_bytes
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.files.configuration import tomllib
from mlx_qwen3tts.networks.codec.decoder import CodecDecoder
from mlx_qwen3tts.synthesis.planning import Planner

ROOT = Path(__file__).parent.parent
HEAVY = ("mlx.core", "numpy", "transformers", "mlx_lm", "huggingface_hub", "tokenizers", "soundfile", "tqdm")
SEED = ("--seed", "1")


def python(*arguments, **options):
    """Run this Python from the repository's root."""
    options = {"cwd": ROOT, "capture_output": True, "timeout": 120, **options}
    return subprocess.run([sys.executable, *map(str, arguments)], **options)


def imported(code):
    """Which of the heavy modules are there after some code has run."""
    done = python("-c", f"{code}\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))", text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


@pytest.fixture
def voice(tmp_path):
    np.save(tmp_path / "voice.npy", vector(64, 1))
    return "voice.npy"


@pytest.fixture
def clone(checkpoint, voice):
    """`generate` with a Base model that ends its speech, but for the text."""
    return ("generate", "--model", checkpoint("base-ends"), "--embedding", voice, "--max-tokens", "40")


# Doors


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_quick_to_come_and_names_every_option(name):
    code = f"import sys; sys.argv = ['x', '--help']\nfrom mlx_qwen3tts.{name} import main\ntry: main()\nexcept "
    done = python("-c", f"{code}SystemExit as e: print(e.code, *(m for m in {HEAVY} if m in sys.modules))", text=True)
    *text, last = done.stdout.splitlines()
    assert last == "0", f"imports {last}"  # status 0 and nothing slow
    assert text[0].startswith(f"usage: mlx_qwen3tts.{name}") and done.stderr == ""
    parser = __import__(f"mlx_qwen3tts.{name}", fromlist=["build_parser"]).build_parser()
    for action in parser._actions:
        assert all(option in done.stdout for option in action.option_strings)


def test_importing_the_package_loads_nothing_heavy():
    assert imported("import mlx_qwen3tts") == []
    assert "mlx_lm" not in (loaded := imported("from mlx_qwen3tts import Qwen3TTS")) and "transformers" not in loaded
    assert set(dir(mlx_qwen3tts)) >= {"Qwen3TTS", "Codec", "Voice"}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = mlx_qwen3tts.Nothing


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_its_console_script(name):
    scripts = (ROOT / "pyproject.toml").read_text()
    assert f'"mlx_qwen3tts.{name}" = "mlx_qwen3tts.{name}:main"' in scripts
    assert 'mlx_qwen3tts = "mlx_qwen3tts.cli:dispatch"' in scripts


def test_dispatcher(checkpoint, capfd):
    folder = str(checkpoint("base"))
    cli.dispatch(["info", "--model", folder, "--json"])
    assert json.loads(capfd.readouterr().out)["type"] == "base"
    for arguments in (["--help"], ["-h"]):
        cli.dispatch(arguments)
        out = capfd.readouterr().out
        assert out.startswith("usage: mlx_qwen3tts NAME") and all(name in out for name in cli.COMMANDS)
    cli.dispatch(["--version"])
    assert capfd.readouterr().out == f"{mlx_qwen3tts.__version__}\n"
    with pytest.raises(SystemExit) as stopped:
        cli.dispatch(["sing"])
    ran = capfd.readouterr()
    assert stopped.value.code == 2 and ran.out == ""
    assert ran.err.startswith("error: no command 'sing'; commands are convert, generate") and ran.err.count("\n") == 1


def test_nothing_but_the_name_says_what_there_is_and_what_comes_next(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sounddevice" else spec(name))
    cli.dispatch([])
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 8 and "play (hearing speech with --play)" in lines[4] and "[NAME]" in lines[4]
    assert "mlx_model, which is not in this folder yet" in lines[5] and lines[6].startswith("next: mlx_qwen3tts demo")
    (tmp_path / "mlx_model").mkdir()
    cli.dispatch([])
    assert 'next: mlx_qwen3tts generate --voice NAME "Hello."' in capfd.readouterr().out  # Base models need a voice
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(cli.EXTRAS) == set(declared) - {"dev"}


@pytest.mark.parametrize("shell", ["zsh", "bash", "fish"])
def test_completion_knows_every_command_and_its_options(command, shell):
    ran = command("completion", shell)
    assert ran.status == 0 and ran.err == ""
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=ran.out, text=True, capture_output=True).stderr == ""
    assert all(word in ran.out for word in (*cli.COMMANDS, "morph-to", "default-format", "num-speakers", "blend"))
    assert command("completion", "csh").status == 2


def test_both_ways_to_run_a_module(checkpoint):
    model = ("--model", checkpoint("voice-design"), "--json")
    one = python("-m", "mlx_qwen3tts", "info", *model, text=True)
    two = python("-m", "mlx_qwen3tts.info", *model, text=True)
    assert one.returncode == two.returncode == 0 and one.stderr == two.stderr == ""
    assert one.stdout == two.stdout and json.loads(one.stdout)["type"] == "voice_design"


def test_a_reader_that_has_gone(checkpoint):
    """As in `info | head -1`: no traceback, no complaint."""
    read, write = os.pipe()
    os.close(read)
    options = {"stdout": write, "stderr": subprocess.PIPE, "capture_output": False}
    done = python("-m", "mlx_qwen3tts.info", "--model", checkpoint("base"), **options)
    os.close(write)
    assert done.returncode == 0 and done.stderr == b""


def test_a_fault_of_ours_is_told_in_full(command, checkpoint, monkeypatch):
    """Only bad input becomes one line; for a fault of the program the traceback is what helps."""
    monkeypatch.setattr(Qwen3TTS, "generate", lambda *_, **__: {}["missing"])
    with pytest.raises(KeyError):
        command("generate", "--model", checkpoint("voice-design"), "Hello.")


# generate


def test_speaking(command, clone):
    ran = command(*clone, "Hello.", *SEED, "--codes-output", "codes.npy")
    assert (ran.status, ran.out) == (0, "")
    assert re.fullmatch(
        r"\d+\.\d\d s of speech in \d+\.\d\d s: RTF \d+\.\d\d, \d+\.\d frames/s, peak memory \d+\.\d\d GB, seed 1\n",
        ran.err,
    )
    codes = np.load("codes.npy")
    sound = soundfile.info("out.wav")
    assert codes.dtype == np.int32 and codes.shape[1] == 16 and 0 < len(codes) < 79
    assert (sound.samplerate, sound.channels, sound.frames) == (24000, 1, len(codes) * 1920)
    assert sound.subtype == "PCM_16"


def test_json_is_the_last_line(command, clone):
    ran = command(*clone, "Hello.", *SEED, "--json", "--output", "höre.wav", "--codes-output", "c.npy")
    assert ran.status == 0 and ran.out.count("\n") == 1
    told = json.loads(ran.out)
    assert told["output"] == "höre.wav" and told["codes_output"] == "c.npy" and told["finish_reason"] == "stop"
    assert told["sample_rate"] == 24000 and told["seed"] == 1 and told["frames"] == len(np.load("c.npy"))
    assert told["seconds"] == pytest.approx(told["frames"] * 0.08)
    assert told["rtf"] == pytest.approx(told["elapsed"] / told["seconds"])


def test_text_from_every_place_is_the_same(command, clone, tmp_path, monkeypatch):
    text = "Hello, the weather is fine. Grüße!"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    places = {"argument": (text,), "option": ("--text", text), "file": ("--text-file", "text.txt")}
    places["stdin"] = ("--text-file", "-")
    codes = {}
    for place, arguments in places.items():
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        run = (*clone, *SEED, "--max-tokens", "8", "--codes-output", "c.npy")
        assert command(*run, *arguments).status == 0
        codes[place] = np.load("c.npy")
    assert all(np.array_equal(codes["argument"], other) for other in codes.values())


def test_sound_to_stdout_and_nothing_else(clone, tmp_path):
    """Through a real pipe, with the text from one."""
    run = ("-m", "mlx_qwen3tts.generate", *clone[1:], *SEED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    piped = python(*run, "--text-file", "-", "--output", "-", input=b"Hello.\n", cwd=tmp_path, env=environment)
    assert piped.returncode == 0 and piped.stdout[:4] == b"RIFF" and b"s of speech" in piped.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["voice.npy"]
    filed = python(*run, "Hello.", "--output", "o.wav", cwd=tmp_path, env=environment)
    assert (filed.returncode, filed.stdout) == (0, b"")
    assert (tmp_path / "o.wav").read_bytes() == piped.stdout


def test_speaking_imports_neither_mlx_lm_nor_transformers(checkpoint, tmp_path):
    model, output = str(checkpoint("voice-design")), str(tmp_path / "o.wav")
    arguments = ["--model", model, "--output", output, "--max-tokens", "3", "Hello."]
    loaded = imported(f"from mlx_qwen3tts.generate import main; main({arguments})")
    assert "mlx.core" in loaded and not {"mlx_lm", "transformers", "huggingface_hub"} & set(loaded)


@pytest.mark.parametrize("suffix", [*FORMATS, ".WAV"])
def test_formats_by_extension(suffix, command, clone):
    run = (*clone, "Hello.", *SEED, "--max-tokens", "12", "--codes-output", "c.npy")
    ran = command(*run, "--output", f"speech{suffix}")
    assert ran.status == 0
    sound = soundfile.info(f"speech{suffix}")
    assert sound.format == FORMATS[suffix.lower()].replace("MP3", "MPEG") or sound.format == "MP3"
    assert (sound.samplerate, sound.channels) == (24000, 1)
    assert sound.frames == pytest.approx(len(np.load("c.npy")) * 1920, abs=0 if suffix != ".mp3" else 2400)
    samples, _ = soundfile.read(f"speech{suffix}")
    assert np.isfinite(samples).all() and np.abs(samples).max() > 0


@pytest.mark.parametrize("kind", ["WAV", "OGG"])
def test_long_sound_can_be_written(kind):
    """libsndfile's Ogg encoder crashes the process on some two minutes given at once."""
    data = audio_bytes(np.random.RandomState(0).uniform(-0.5, 0.5, 150 * 24000).astype(np.float32), 24000, kind)
    assert soundfile.info(io.BytesIO(data)).duration == pytest.approx(150, abs=0.1)


def test_the_same_seed_gives_the_same_bytes(command, clone):
    def bytes_of(*arguments):
        ran = command(*clone, "Hello.", "--max-tokens", "5", "--codes-output", "c.npy", "--json", *arguments)
        return Path("out.wav").read_bytes(), Path("c.npy").read_bytes(), json.loads(ran.out)["seed"]

    assert bytes_of(*SEED) == bytes_of(*SEED)
    assert bytes_of(*SEED)[1] != bytes_of("--seed", "2")[1]
    unseeded = bytes_of()
    assert unseeded == bytes_of("--seed", unseeded[2])  # the seed drawn is told
    assert bytes_of("--seed", "0")[2] == 0 and bytes_of("--seed", "4294967295")[2] == 4294967295


def test_greedy_is_temperature_zero(command, clone):
    codes, short = [], (*clone, "Hello.", "--max-tokens", "8", "--codes-output", "c.npy")
    for arguments in (("--greedy",), ("--temperature", "0"), ("--greedy", "--temperature", "1.5", "--seed", "9")):
        assert command(*short, *arguments).status == 0
        codes.append(np.load("c.npy"))
    assert all(np.array_equal(codes[0], other) for other in codes)
    assert command(*short, *SEED).status == 0
    assert not np.array_equal(codes[0], np.load("c.npy"))


def test_sampling_options_reach_the_samplers(command, clone):
    def codes(*arguments):
        run = (*clone, "Hello.", *SEED, "--max-tokens", "7", "--codes-output", "c.npy")
        assert command(*run, *arguments).status == 0
        return np.load("c.npy")

    plain = codes()
    for option, value in (
        ("--temperature", "5"),
        ("--top-k", "1"),
        ("--top-p", "0.01"),
        ("--repetition-penalty", "0.05"),
        ("--subtalker-temperature", "5"),
        ("--subtalker-top-k", "1"),
        ("--subtalker-top-p", "0.01"),
    ):
        assert not np.array_equal(plain, codes(option, value)), option


@pytest.mark.parametrize("tokens", [2, 3, 9])
def test_max_tokens_and_a_cut_end(tokens, command, checkpoint, voice):
    model = ("--model", checkpoint("base"), "--embedding", voice)
    ran = command("generate", *model, "Hello.", *SEED, "--max-tokens", tokens, "--codes-output", "c.npy", "--json")
    assert ran.status == 0 and len(np.load("c.npy")) == tokens - 1
    assert json.loads(ran.out)["finish_reason"] == "length"
    assert f"warning: the speech did not end within {tokens} tokens and was cut; raise max_tokens" in ran.err


def test_voices_of_every_kind(command, checkpoint, voice, tmp_path):
    audio = recording(tmp_path / "speaker.wav", 1, 3.1)
    for name, *arguments in (
        ("base", "--embedding", voice),
        ("base", "--voice", voice),
        ("base", "--ref-audio", audio),
        ("base", "--ref-audio", audio, "--prepare", "--language", "German"),
        ("base", "--ref-audio", audio, "--ref-text", "The reference."),
        ("custom-voice", "--voice", "Vivian"),
        ("custom-voice", "--voice", "ERIC", "--language", "chinese"),
        ("custom-voice", "--embedding", voice, "--text-mode", "full"),
        ("custom-voice-1b7", "--voice", "ryan", "--instruct", "Whisper."),
        ("custom-voice-1b7", "--voice", "ryan", "--instruct", ""),
        ("voice-design", "--instruct", "A warm, low voice."),
        ("voice-design", "--text-mode", "streaming", "--language", "Auto", "--dtype", "float32"),
        ("fine-tune", "--voice", "Anna"),
    ):
        ran = command("generate", "--model", checkpoint(name), *arguments, "--max-tokens", "3", *SEED, "Hello.")
        assert ran.status == 0 and ran.out == "", (name, arguments, ran.err)


def test_speakers_with_capitals_are_found(command, checkpoint, tmp_path):
    """Fine-tunes carry the name that was given to the training script."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in checkpoint("fine-tune").iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((folder / "config.json").read_text())
    config["talker_config"] |= {"spk_id": {"Anna B": 3000}, "spk_is_dialect": {"Anna B": False}}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("Anna B", "anna b"):
        run = ("generate", "--model", "model", "--voice", name, "--max-tokens", "3", "Hello.")
        assert command(*run).status == 0


def test_float16_warns(command, clone):
    assert (
        "warning: float16 is known to make the talker collapse"
        in command(*clone, "Hi.", "--dtype", "float16", "--max-tokens", "3").err
    )


def test_a_voice_of_an_unusual_norm_warns(command, checkpoint, tmp_path):
    row = Qwen3TTS.from_pretrained(checkpoint("custom-voice")).preset("ryan").embedding
    Voice(row * 10).save(tmp_path / "loud.npy")
    Voice(row).save(tmp_path / "usual.npy")
    run = ("generate", "--model", checkpoint("custom-voice"), "--max-tokens", "3", "Hello.", "--embedding")
    assert "warning: the voice's norm" in command(*run, "loud.npy").err
    assert "norm" not in command(*run, "usual.npy").err


def test_a_new_output_follows_the_umask(command, clone, tmp_path):
    umask = os.umask(0o027)
    try:
        assert command(*clone, "Hello.", *SEED, "--output", "o.wav").status == 0
    finally:
        os.umask(umask)
    assert soundfile.info("o.wav").frames > 0 and os.stat("o.wav").st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.wav", "voice.npy"]


# Embeddings


def test_embedding_formats_are_equivalent(command, clone, tmp_path):
    from safetensors.numpy import save_file

    # Values that every format holds exactly: bfloat16's few bits, in float16's range.
    values = np.array(mx.array(vector(64, 1)).astype(mx.bfloat16).astype(mx.float32))
    np.save(tmp_path / "d.npy", values)
    np.save(tmp_path / "row.npy", values[None])
    np.save(tmp_path / "half.npy", values.astype(np.float16))
    np.save(tmp_path / "double.npy", values.astype(np.float64))
    np.save(tmp_path / "big-endian.npy", values.astype(">f4"))
    for name, dtype in (("f16", np.float16), ("f32", np.float32), ("f64", np.float64)):
        save_file({"speaker_embedding": values.astype(dtype)}, tmp_path / f"{name}.safetensors")
    save_file({"speaker_embedding": values[None]}, tmp_path / "row.safetensors")
    half = {"speaker_embedding": mx.array(values).astype(mx.bfloat16)}
    mx.save_safetensors(str(tmp_path / "bf16.safetensors"), half)
    (tmp_path / "list.json").write_text(json.dumps(values.tolist()))
    (tmp_path / "nested.json").write_text(json.dumps([values.tolist()]))
    (tmp_path / "mark.json").write_text(json.dumps(values.tolist()), encoding="utf-8-sig")
    run, codes, paths = (*clone, "Hello.", *SEED, "--max-tokens", "4", "--codes-output", "c.npy"), {}, []
    for path in sorted(tmp_path.iterdir()):
        if path.name != "voice.npy":
            assert np.array_equal(np.array(Voice.load(path).embedding), values), path.name
            paths.append(path.name)
    assert len(paths) == 13
    for name in ("d.npy", "f32.safetensors", "list.json"):  # the others are the same Voice
        assert command(*run, "--embedding", name).status == 0
        codes[name] = np.load("c.npy")
    assert all(np.array_equal(codes["d.npy"], other) for other in codes.values())


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".json"])
def test_embedding_a_recording(suffix, command, checkpoint, tmp_path, model):
    audio = recording(tmp_path / "speaker.wav", 1, 3.1)
    ran = command("embed", "--model", checkpoint("base"), audio, "--output", f"v{suffix}", "--json")
    assert ran.status == 0 and ran.err.startswith("64 dimensions, norm ")
    assert json.loads(ran.out) == {"output": [f"v{suffix}"], "dimension": 64}
    written = Voice.load(f"v{suffix}")
    assert written.embedding.dtype == mx.float32
    assert np.allclose(np.array(written.embedding), np.array(model("base").embed(audio)), atol=1e-6)
    if suffix == ".safetensors":
        assert written.metadata == {"source_model": "base"}
    if suffix == ".npy":
        assert np.load("v.npy").shape == (64,) and np.load("v.npy").dtype == np.float32


@pytest.mark.parametrize(
    ("run", "more"),
    [
        (("embed",), ("--output", "made/", "--model")),
        (("voices", "measure"), ("--output", "made.csv")),
        (("voices", "add"), ("--library", "made", "--model")),
    ],
    ids=["embed", "measure", "add"],
)
def test_all_files_that_cannot_be_used_are_named(run, more, command, checkpoint, tmp_path):
    (tmp_path / "text.wav").write_text("Not a sound.")
    good = [recording(tmp_path / "good.wav", 1, 3.1)] if "measure" not in run else []  # which compiles for seconds
    model = [checkpoint("base")] if more[-1] == "--model" else []
    before = sorted(tmp_path.rglob("*"))
    ran = command(*run, "none.wav", *good, "text.wav", *more, *model)
    missing, text = ran.lines
    assert ran.status == 2 and ran.out == "" and missing == "error: audio none.wav: no such file"
    assert text.startswith("error: audio text.wav cannot be read: ")
    assert sorted(tmp_path.rglob("*")) == before, "something was left behind"


def test_several_recordings_to_a_folder(command, refused, checkpoint, tmp_path):
    audio = [recording(tmp_path / f"{name}.wav", i, 3.1) for i, name in enumerate("abc")]
    run = ("embed", "--model", checkpoint("base"), *audio, "--output")
    assert refused(*run, "v.npy") == "3 recordings need --average or a folder as --output"
    assert refused(*run, "voices") == (
        "output voices: extension '' is not one of .npy .safetensors .json, and there is no such folder; end it with / "
        "to make one"
    )
    assert refused(*run, "nowhere/voices/") == "output folder nowhere does not exist"
    assert refused(*run[:3], "nowhere.wav", "--output", "voices/").startswith("audio nowhere.wav")
    assert not Path("voices").exists()  # nothing was made, so no folder either
    assert command(*run, "voices/").status == 0
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == [f"{n}.safetensors" for n in "abc"]
    for path in (tmp_path / "voices").iterdir():
        path.unlink()
    assert refused(*run, "voices", "--average") == "--average makes one vector: --output voices must be a file"
    assert refused(*run[:-1], audio[0], *run[-1:], "voices").startswith("two recordings have the same name")
    assert command(*run, "voices").status == 0
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == [f"{n}.safetensors" for n in "abc"]


def test_averaging_names_outlier_and_spread(command, checkpoint, tmp_path):
    takes = [recording(tmp_path / f"take{i}.wav", 7, 3.1 + 0.2 * i) for i in range(3)]
    other = tmp_path / "other.wav"
    soundfile.write(other, np.random.RandomState(0).uniform(-0.5, 0.5, 80000), 24000)
    run = ("embed", "--model", checkpoint("base"), "--average", "--json", "--output")
    ran = command(*run, "v.npy", *takes, other)
    told = json.loads(ran.out)
    assert told["outliers"] == [str(other)] and told["spread"] > 0.05
    assert set(told["distances"]) == {str(path) for path in (*takes, other)}
    assert f"warning: {other} is far from the others: another speaker or a bad recording?" in ran.err
    assert "4 recordings, spread " in ran.err
    singles = []
    for path in (*takes, other):
        command("embed", "--model", checkpoint("base"), path, "--output", "one.npy")
        singles.append(np.load("one.npy"))
    assert np.allclose(np.load("v.npy"), np.mean(singles, axis=0), atol=1e-5)
    good = json.loads(command(*run, "v.safetensors", *takes).out)
    assert good["outliers"] == [] and good["spread"] < told["spread"]
    assert Voice.load("v.safetensors").metadata["recordings"] == "3"


def test_averaging_two_speakers_says_that_they_differ(command, tmp_path):
    """Which is no outlier: each of two lies as far from the other."""
    folder = Path(mlx_qwen3tts.__file__).parent / "miniature" / "recordings"
    for name in ("high", "low"):
        sound, rate = soundfile.read(folder / f"{name}.flac")
        for half, part in (("a", sound[: sound.size // 2]), ("b", sound[sound.size // 2 :])):
            soundfile.write(tmp_path / f"{name}-{half}.wav", part, rate)
    run = ("embed", "--model", "miniature", "--average", "--json", "--output", "v.npy")
    for takes, pair in (
        (["high-a.wav", "low-a.wav"], ["high-a.wav", "low-a.wav"]),
        (["high-a.wav", "high-b.wav", "low-a.wav", "low-b.wav"], None),
    ):
        ran = command(*run, *takes)
        apart = json.loads(ran.out)["apart"]
        assert apart["two_speakers"] and apart["distance"] > 1 and json.loads(ran.out)["outliers"] == []
        assert pair in (None, apart["recordings"]) and {name[:3] for name in apart["recordings"]} == {"hig", "low"}
        said = (
            f"warning: {' and '.join(apart['recordings'])} differ by {apart['distance']:.0%} of the vector's norm, as"
        )
        assert said in ran.err
    ran = command(*run, "high-a.wav", "high-b.wav")
    assert not json.loads(ran.out)["apart"]["two_speakers"] and "differ by" not in ran.err


def tone(seconds, loudness=0.3, rate=24000):
    time = np.arange(int(seconds * rate)) / rate
    return loudness * np.sin(2 * np.pi * 150 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))


@pytest.mark.parametrize(
    ("samples", "advice"),
    [
        (tone(2.5), "2.5 s is short; 3 s or more give a better voice"),
        (np.clip(tone(4) * 10, -1, 1), "of the samples are clipped"),
        (tone(4, 0.005), "its level is low (-"),
        (np.concatenate([tone(2), np.zeros(30000), tone(2)]), "it has 1.2 s of silence in one piece"),
        (np.concatenate([tone(4), np.zeros(48000)]), "it has 2.0 s of silence in one piece"),
        (tone(4), None),
        (np.concatenate([tone(2), np.zeros(20000), tone(2)]), None),
    ],
    ids=["short", "clipped", "low", "gap", "tail", "good", "a pause"],
)
def test_what_hurts_a_recording_is_said(samples, advice, command, checkpoint, tmp_path):
    soundfile.write(tmp_path / "a.wav", samples, 24000)
    model = ("--model", checkpoint("base"))
    transcript = ("--ref-text", "Hi.") if samples.size < 72000 else ()  # with it the recording is read twice
    for run in (
        ("embed", *model, "a.wav", "--output", "v.npy"),
        ("generate", *model, "--ref-audio", "a.wav", *transcript, "--max-tokens", "3", "Hello."),
    ):
        ran = command(*run)
        warned = [line for line in ran.err.splitlines() if line.startswith("warning: audio a.wav: ")]
        assert ran.status == 0 and len(warned) == (advice is not None), ran.err  # once, not once per use
        assert all(advice in line for line in warned)


def test_preparing_trims_and_levels(command, checkpoint, tmp_path):
    speech = tone(4, 0.3)
    padded = np.concatenate([np.zeros(60000), speech * 0.02, np.zeros(60000)])
    soundfile.write(tmp_path / "plain.wav", speech, 24000, subtype="FLOAT")
    soundfile.write(tmp_path / "quiet.wav", padded, 24000, subtype="FLOAT")
    run = ("embed", "--model", checkpoint("base"))
    vectors, heard = {}, {}
    for name in ("plain", "quiet"):
        for option in ((), ("--prepare",)):
            heard[(name, *option)] = command(*run, f"{name}.wav", "--output", "v.npy", *option).err
            vectors[(name, *option)] = np.load("v.npy")

    def apart(one, two):
        return np.linalg.norm(vectors[one] - vectors[two]) / np.linalg.norm(vectors[two])

    assert "silence" in heard["quiet",] and "level is low" in heard["quiet",]
    assert "warning" not in heard["quiet", "--prepare"]  # what has been mended is not complained of
    assert apart(("quiet", "--prepare"), ("plain", "--prepare")) < 0.3 * apart(("quiet",), ("plain",))


@pytest.mark.parametrize("prefix", ["speaker_encoder.", ""])
@pytest.mark.parametrize("nested", [True, False])
def test_a_standalone_encoder(prefix, nested, command, refused, checkpoint, tmp_path):
    audio = recording(tmp_path / "speaker.wav", 2, 3.1)
    base = checkpoint("base")
    folder = tmp_path / "encoder"
    folder.mkdir()
    weights = mx.load(str(base / "model.safetensors"))
    alone = {n.replace("speaker_encoder.", prefix): v for n, v in weights.items() if n.startswith("speaker_encoder.")}
    mx.save_safetensors(str(folder / "model.safetensors"), alone)
    config = json.loads((base / "config.json").read_text())["speaker_encoder_config"]
    (folder / "config.json").write_text(json.dumps({"speaker_encoder_config": config} if nested else config))
    assert command("embed", "--model", "encoder", audio, "--output", "alone.npy").status == 0
    assert command("embed", "--model", base, audio, "--output", "base.npy").status == 0
    assert Path("alone.npy").read_bytes() == Path("base.npy").read_bytes()
    assert "model type None is not 'qwen3_tts'" in refused("generate", "--model", "encoder", "Hello.")
    mx.save_safetensors(str(folder / "model.safetensors"), {**alone, "x": mx.zeros(2)})
    assert "unexpected tensor speaker_encoder.x" in refused("embed", "--model", "encoder", audio, "--output", "v.npy")


# codec and info


def test_codec_both_ways(command, checkpoint, tmp_path):
    audio = recording(tmp_path / "a.wav", 3, 1.0, rate=44100, channels=2)
    model = checkpoint("voice-design")
    ran = command("codec", "encode", "--model", model, audio, "--json")
    assert ran.status == 0 and json.loads(ran.out) == {"output": "codes.npy", "frames": 13, "codebooks": 16}
    codes = np.load("codes.npy")
    assert codes.dtype == np.int32 and codes.shape == (13, 16)
    alone = ("--model", model / "speech_tokenizer")
    assert command("codec", "encode", *alone, audio, "--output", "again.npy").status == 0
    assert np.array_equal(codes, np.load("again.npy"))
    ran = command("codec", "decode", *alone, "codes.npy", "--json")
    assert json.loads(ran.out) == {"output": "out.wav", "seconds": 13 * 0.08, "sample_rate": 24000}
    assert soundfile.info("out.wav").frames == 13 * 1920
    for dtype in (np.int16, np.uint16, np.int64):
        np.save("other.npy", codes.astype(dtype))
        assert command("codec", "decode", *alone, "other.npy", "--output", "other.flac").status == 0
        assert np.allclose(soundfile.read("other.flac")[0], soundfile.read("out.wav")[0], atol=1e-4)


def test_generated_codes_decode_to_the_generated_sound(command, clone):
    assert command(*clone, "Hello.", *SEED, "--output", "spoken.wav", "--codes-output", "codes.npy").status == 0
    assert command("codec", "decode", *clone[1:3], "codes.npy", "--output", "decoded.wav").status == 0
    spoken, decoded = (soundfile.read(f"{name}.wav", dtype="int16")[0] for name in ("spoken", "decoded"))
    assert np.array_equal(spoken, decoded)


@pytest.mark.parametrize(
    ("name", "kind", "size", "speakers"),
    [
        ("base", "base", "0b6", []),
        ("custom-voice", "custom_voice", "0b6", ["serena", "vivian", "uncle_fu", "ryan", "eric", "dylan"]),
        ("custom-voice-1b7", "custom_voice", "1b7", ["serena", "vivian", "uncle_fu", "ryan", "eric", "dylan"]),
        ("voice-design", "voice_design", "1b7", []),
        ("fine-tune", "custom_voice", "0b6", ["anna"]),
    ],
)
def test_info(name, kind, size, speakers, command, checkpoint):
    folder = checkpoint(name)
    ran = command("info", "--model", folder, "--json")
    assert ran.status == 0 and ran.err == "" and ran.out.count("\n") == 1
    told = json.loads(ran.out)
    assert (told["type"], told["size"], told["speakers"], told["embedding_dim"]) == (kind, size, speakers, 64)
    assert told["languages"][:3] == ["auto", "chinese", "english"] and "sichuan_dialect" not in told["languages"]
    assert told["dtypes"] == ["BF16"] and told["quantization"] is None
    assert told["codec"] == {"sample_rate": 24000, "samples_per_frame": 1920, "codebooks": 16, "dtypes": ["F32"]}
    files = [folder / "model.safetensors", folder / "speech_tokenizer" / "model.safetensors"]
    assert 0 < sum(file.stat().st_size for file in files) - told["memory"]["total"] < 200_000  # the headers
    parts = ("talker.code_predictor", "talker", "speaker_encoder", "codec")
    assert sum(told["memory"][part] for part in parts) == told["memory"]["total"]
    assert (told["memory"]["speaker_encoder"] > 0) == (kind == "base")
    text = command("info", "--model", folder).out
    assert all(word in text for word in (kind, size, *speakers, "german", "BF16", "MB"))


@pytest.mark.filterwarnings("ignore:left unquantised")
def test_info_of_quantised_parts(command, checkpoint):
    convert = ("convert", "--hf-path", checkpoint("base"), "-q", "--q-group-size", "32", "--q-bits", "4")
    assert command(*convert, "--q-predictor-bits", "8").status == 0
    told = json.loads(command("info", "--json").out)["quantization"]
    shared = {"group_size": 32, "mode": "affine"}
    assert {key: value for key, value in told.items() if key != "parts"} == {"bits": 4, **shared}
    assert {part: [own["bits"] for own in settings] for part, settings in told["parts"].items()} == {
        "talker": [4],
        "talker.code_predictor": [8],
    }
    line = next(line for line in command("info").out.splitlines() if line.startswith("quantization"))
    assert line.split(maxsplit=1)[1] == "talker 4 bits in groups of 32; talker.code_predictor 8 bits in groups of 32"


def test_info_names_the_model_once(command, refused):
    assert command("info", "miniature").out == command("info", "--model", "miniature").out
    line = next(line for line in command("info", "miniature").out.splitlines() if line.startswith("quantization"))
    assert line.split(maxsplit=1)[1] == "talker 6 bits in groups of 64; talker.code_predictor 8 bits in groups of 64"
    assert command("info", "miniature", "--model", "miniature").status == 0
    assert "info describes one model at a time" in refused("info", "miniature", "--model", "other")


def test_info_of_the_codec(command, checkpoint):
    folder = checkpoint("base") / "speech_tokenizer"
    told = json.loads(command("info", "--model", folder, "--json").out)
    assert told["type"] == "codec" and told["codebooks"] == 16 and told["memory"]["total"] > 0
    assert "sample_rate" in command("info", "--model", folder).out


# demo


@pytest.mark.thorough
def test_demo(command, tmp_path):
    ran = command("demo", "--output", "shown")
    assert ran.status == 0
    files = [Path(line) for line in ran.out.splitlines()]
    assert len(set(files)) == len(files) == 10 and all(file.is_file() for file in files)
    assert {file.suffix for file in files} == {".npy", ".wav", ".safetensors", ".png"}
    assert soundfile.info("shown/blend.wav").frames > 12000 and np.load("shown/blend.npy").shape == (192,)
    spoken = {line.split()[0]: int(line.split()[-2]) for line in ran.err.splitlines() if line.endswith(" Hz")}
    assert spoken["low"] < spoken["blend"] < spoken["high"] and spoken["low"] < spoken["higher"]
    assert command("demo", "--output", "shown").status == 0  # again, over the first
    (tmp_path / "file").touch()
    again = command("demo", "--output", "file")
    assert again.status == 2 and again.err.startswith("error: ") and again.err.count("\n") == 1


def test_demo_without_the_extra(command, monkeypatch):
    monkeypatch.setattr(demo, "TEXT", "Hello.")  # quicker to speak
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    ran = command("demo")
    assert ran.status == 0 and f"pip install -e '{ROOT}[voices]'" in ran.err
    assert len(ran.out.splitlines()) == 9 and Path("demo/higher.wav").is_file()


# Ctrl-C


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "TERM"])
def test_a_signal_keeps_what_was_spoken(number, status, checkpoint, tmp_path):
    np.save(tmp_path / "voice.npy", vector(64, 1))
    code = (
        "import sys\n"
        "from mlx_qwen3tts.synthesis.loop import Generation\n"
        "enqueue = Generation.enqueue\n"
        "def told(self):\n"
        "    if self.rows and self.rows[0].tokens == 10: print('ten', file=sys.stderr, flush=True)\n"
        "    return enqueue(self)\n"
        "Generation.enqueue = told\n"
        "from mlx_qwen3tts.generate import main; main()\n"
    )
    arguments = ["--model", str(checkpoint("base")), "--embedding", "voice.npy", "--max-tokens", "20000", "--json"]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, *SEED, "--codes-output", "c.npy", "Hello."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts the tests in the background has SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert running.stderr.readline() == "ten\n"
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == status and "Traceback" not in err
    assert err.endswith("interrupted: what was spoken so far is kept\n")
    told = json.loads(out)
    assert told["finish_reason"] == "interrupted" and 9 <= told["frames"] < 19_999
    codes = np.load(tmp_path / "c.npy")
    assert len(codes) == told["frames"] and soundfile.info(tmp_path / "out.wav").frames == len(codes) * 1920
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npy", "out.wav", "voice.npy"]


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_sigterm_ends_a_command_in_order_unless_it_is_ignored(before, command, clone, tmp_path, monkeypatch):
    resolve, old = hub.resolve, signal.signal(signal.SIGTERM, before)

    def terminated(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return resolve(*arguments, **options)

    monkeypatch.setattr(hub, "resolve", terminated)
    try:
        ran = command(*clone, "Hello.", "--max-tokens", "3")
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, old)
    if before == signal.SIG_DFL:
        assert (ran.status, ran.out, ran.err) == (143, "", "interrupted\n")
        assert [path.name for path in tmp_path.iterdir()] == ["voice.npy"]
    else:
        assert ran.status == 0
    monkeypatch.setattr(hub, "resolve", interrupt)
    assert command(*clone, "Hello.").status == 130  # a later Ctrl-C is one


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(("of", "where"), [(Qwen3TTS, "from_pretrained"), (Planner, "prompt")])
def test_ctrl_c_before_anything_was_spoken(of, where, command, clone, tmp_path, monkeypatch):
    monkeypatch.setattr(of, where, interrupt)
    ran = command(*clone, "Hello.")
    assert (ran.status, ran.out, ran.err) == (130, "", "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["voice.npy"]


def test_ctrl_c_while_the_sound_is_decoded(command, checkpoint, tmp_path, monkeypatch):
    np.save(tmp_path / "voice.npy", vector(64, 1))
    model = ("--model", checkpoint("base"))
    step, calls = CodecDecoder.step, []

    def interrupted_once(decoder, codes, state):
        calls.append(codes.shape[1])
        sound = step(decoder, codes, state)
        return interrupt() if len(calls) == 2 else sound

    monkeypatch.setattr(CodecDecoder, "step", interrupted_once)
    options = ("--embedding", "voice.npy", "--max-tokens", "60", "--codes-output", "c.npy", "--json")
    ran = command("generate", *model, *options, "Hello.", *SEED)
    assert ran.status == 130 and json.loads(ran.out)["finish_reason"] == "interrupted"
    assert calls == [16, 16, 16] and soundfile.info("out.wav").frames == 32 * 1920
    # The step that was interrupted left nothing behind: the sound is that of the codes.
    assert command("codec", "decode", "c.npy", *model, "--output", "again.wav").status == 0
    assert np.abs(soundfile.read("out.wav")[0] - soundfile.read("again.wav")[0]).max() < 1e-4


@pytest.mark.parametrize("name", ["embed", "codec", "info"])
def test_ctrl_c_in_the_other_commands(name, command, checkpoint, tmp_path, monkeypatch):
    from mlx_qwen3tts.checkpoint import hub

    monkeypatch.setattr(hub, "resolve", interrupt)
    audio = recording(tmp_path / "a.wav", 1, 3.1)
    rest = {"embed": (audio, "--output", "v.npy"), "codec": ("encode", audio), "info": ()}[name]
    ran = command(name, *rest[:1], "--model", checkpoint("base"), *rest[1:])
    assert (ran.status, ran.out, ran.err) == (130, "", "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
