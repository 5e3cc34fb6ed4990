"""Scripts and recordings on a real dask cluster on this machine: a scheduler, two workers, and a kill.

make test-cluster
"""

import json
import os
import shutil
import signal
import warnings

import numpy as np
import pytest
import soundfile

pytest.importorskip("distributed")

from benchmarks.machines import machines
from mlx_qwen3tts import Qwen3TTS, Request, Sampling, Voice
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.cluster import scheduler
from mlx_qwen3tts.cluster.remote import Speakers
from mlx_qwen3tts.cluster.scheduler import Cluster
from mlx_qwen3tts.errors import ClusterError

pytestmark = pytest.mark.cluster

MINIATURE = hub.SHIPPED["miniature"]
VOICES = MINIATURE / "voices"
TEXTS = ("Hello!", "Can you hear me?", "The moon is white.", "Today is Monday.", "Goodbye.", "I hear you.", "Yes.")
PLAY = "# One two\n\nANNA: Hello.\n\nGoodbye.\n\nBEN: [rate: 1.5] Hello."


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A cluster of two workers; `mlx_model` is the miniature there."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "mlx_model").symlink_to(MINIATURE)
    with machines(folder, 2) as made:
        yield made


@pytest.fixture
def files(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    cast = {"narrator": str(VOICES / "voice01.safetensors"), "ANNA": str(VOICES / "voice02.safetensors")}
    (tmp_path / "voices.json").write_text(json.dumps({**cast, "BEN": {"voice": cast["narrator"], "rate": 0.9}}))
    return (
        "script",
        "render",
        "play.txt",
        "--voices",
        "voices.json",
        "--max-tokens",
        "12",
        "--model",
        "miniature",
        "--output",
    )


def test_a_script(two, files, command, tmp_path):
    assert command(*files, "here.wav").status == 0
    ran = command(*files, "there.wav", "--workers", two.address)
    assert ran.status == 0 and "pieces: 4 spoken, 0 kept" in ran.err, ran.err
    assert (tmp_path / "there.wav").read_bytes() == (tmp_path / "here.wav").read_bytes()
    # What one has begun the other goes on with: the pieces are the same.
    (tmp_path / "play.txt").write_text(PLAY.replace("Goodbye", "Yes"))
    assert "pieces: 1 spoken, 3 kept" in command(*files, "here.wav", "--workers", two.address).err
    assert "pieces: 0 spoken, 4 kept" in command(*files, "here.wav").err


def test_recordings(two, command, tmp_path):
    for name in ("low", "high"):
        shutil.copy(MINIATURE / "recordings" / f"{name}.flac", tmp_path)
    samples, rate = soundfile.read(tmp_path / "low.flac")
    soundfile.write(tmp_path / "short.wav", samples[: rate // 4], rate)
    soundfile.write(tmp_path / "brief.wav", samples[: rate * 2], rate)
    embed = ("embed", "low.flac", "high.flac", "brief.wav", "--prepare", "--output")
    here = command(*embed, "here/", "--model", "miniature")
    there = command(*embed, "there/", "--model", "miniature", "--workers", two.address)
    assert there.status == 0 and sorted(there.err.replace("there/", "here/").splitlines()) == sorted(
        here.err.splitlines()
    )
    for name in ("low", "high", "brief"):
        one, other = (tmp_path / folder / f"{name}.safetensors" for folder in ("here", "there"))
        assert one.read_bytes() == other.read_bytes()
    ran = command("embed", "short.wav", "--output", "x.npy", "--model", "miniature", "--workers", two.address)
    assert ran.status == 2 and ran.lines[-1].startswith("error: audio short.wav lasts 0.25 s")


def test_a_model_that_is_not_the_same(two, files, command, tmp_path):
    shutil.copytree(MINIATURE, tmp_path / "mlx_model")
    with (tmp_path / "mlx_model" / "generation_config.json").open("a") as config:
        config.write("\n")
    render = [*files[:-3], "--output", "a.wav", "--workers", two.address]
    ran = command(*render, "--model", "mlx_model")
    assert ran.status == 2 and "has another model 'mlx_model': its generation_config.json differs" in ran.lines[-1]
    (tmp_path / "mlx_model").rename(tmp_path / "other")
    ran = command(*render, "--model", "other")
    assert ran.status == 2 and len(ran.lines) == 1
    assert ran.lines[0].startswith("error: worker tcp://") and "model 'other': no such folder" in ran.lines[0]
    (tmp_path / "other").rename(tmp_path / "mlx_model")
    shutil.copy(MINIATURE / "generation_config.json", tmp_path / "mlx_model")
    assert command(*render, "--model", "mlx_model").status == 0  # nothing was lost, and the workers live


def test_a_worker_that_is_killed(tmp_path):
    tts, voice = Qwen3TTS.from_pretrained("miniature"), Voice.load(VOICES / "voice03.safetensors")
    sampling = Sampling(max_tokens=20)
    requests = [Request(text, voice, seed=i, rate=1 + i / 20, sampling=sampling) for i, text in enumerate(TEXTS)]
    here, there, killed = {}, {}, []
    tts.generate_each(requests, here.__setitem__)
    with machines(tmp_path, 2) as made, Cluster(made.address) as watching:

        def done(number, speech):
            there[number] = speech
            if not killed:
                busy = {name: keys for name, keys in watching.client.processing().items() if keys}
                killed.extend(busy)
                os.kill(made.workers[min(busy)].pid, signal.SIGKILL)

        Speakers(made.address, "miniature").generate_each(requests, done, batch_size=1)
        assert len(killed) == 2 and len(watching.threads()) == 1
    assert here.keys() == there.keys()
    for number, speech in here.items():
        assert np.array_equal(np.array(speech.codes), np.array(there[number].codes))
        assert np.array_equal(np.array(speech.audio), np.array(there[number].audio))
        assert speech.finish_reason == there[number].finish_reason


def test_workers_that_are_none(files, command, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "GONE", 0.5)
    monkeypatch.setattr(scheduler, "LOOK", 0.1)
    (tmp_path / "cluster").mkdir()
    with machines(tmp_path / "cluster") as made:
        render = (*files, "a.wav", "--workers", made.address, "--batch-size", "1")
        ran = command(*render)
        start = f"dask worker {made.address} --nthreads 1 --memory-limit 0"
        assert ran.lines == [f"error: the scheduler at {made.address} has no workers; start some: {start}"]
        made.work(1, "--nthreads", "2")
        original = Cluster.threads
        looks = iter(range(3))

        def threads(self):
            if next(looks, None) is None:
                for process in made.workers.values():
                    process.kill()
            return original(self)

        with monkeypatch.context() as patch:
            patch.setattr(Cluster, "threads", threads)
            ran = command(*render)
        assert ran.status == 2 and f"all workers of {made.address} have gone" in ran.lines[-1]
        assert "has 2 threads of which one can speak" in ran.err
        kept = len(json.loads((tmp_path / "a.wav.manifest.json").read_text())["pieces"])
        made.work(1)
        ran = command(*render)
        assert ran.status == 0 and f"pieces: {4 - kept} spoken, {kept} kept" in ran.err

        (tmp_path / "b.wav.manifest.json").unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(Cluster, "each", lambda *given, each=Cluster.each: (made.scheduler.kill(), each(*given)))
            ran = command(*files, "b.wav", "--workers", made.address)
        assert ran.status == 2 and ran.lines == [
            f"error: the scheduler at {made.address} has gone; start it again, then the same command"
        ]
        monkeypatch.setattr(scheduler, "PATIENCE", 0.3)
        ran = command(*files, "b.wav", "--workers", made.address)
        assert ran.status == 2 and ran.lines[0].startswith(f"error: no scheduler answers at {made.address}")


def test_versions_that_differ(two, monkeypatch):
    distributed = pytest.importorskip("distributed")
    original = distributed.Client.get_versions
    for package, version, message in (
        ("mlx-qwen3tts", None, "lacks mlx-qwen3tts: pip install"),
        ("mlx", "0.1", r"has mlx 0\.1, this machine"),
    ):

        def versions(self, package=package, version=version, **how):
            found = original(self, **how)
            next(iter(found["workers"].values()))["packages"][package] = version
            return found

        monkeypatch.setattr(distributed.Client, "get_versions", versions)
        with warnings.catch_warnings(), pytest.raises(ClusterError, match=message):
            Cluster(two.address)
