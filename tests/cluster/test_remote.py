"""What goes to other machines and comes back, with a cluster that is this process; test_machines.py has a real one."""

import importlib.util
import pickle
import warnings
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Request, Sampling, Voice
from mlx_qwen3tts.cluster import remote, work
from mlx_qwen3tts.cluster.scheduler import Cluster, check_address
from mlx_qwen3tts.errors import AudioError, ClusterError, MissingExtra, UnsupportedValue
from mlx_qwen3tts.synthesis import watch
from mlx_qwen3tts.synthesis.planning import Notes

SHORT = Sampling(max_tokens=4)
needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask's distributed is missing")


@pytest.fixture
def nearby(monkeypatch):
    """The parcels that were sent to a cluster of two workers, which is this process."""
    sent = []

    class Nearby:
        def __init__(self, address):
            self.threads = lambda: {"one": 1, "two": 1}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def each(self, function, parcels, done):
            for parcel in parcels:
                data = pickle.dumps(parcel)
                assert b"mlx_qwen3tts" not in data  # none of our classes travels
                sent.append(pickle.loads(data))
                result = pickle.dumps(function(*sent[-1]))
                assert b"mlx_qwen3tts" not in result
                done(pickle.loads(result))

    monkeypatch.setattr(remote, "Cluster", Nearby)
    monkeypatch.setattr(remote, "check_address", str)
    monkeypatch.setattr(work, "here", lambda: "tcp://here")
    return sent


@pytest.mark.filterwarnings("ignore:.*norm .* is far from:UserWarning")
def test_what_is_spoken_there_is_what_is_spoken_here(nearby, model, checkpoint, tmp_path):
    tts, folder = model("base"), checkpoint("base")
    vector = np.random.RandomState(1).standard_normal(tts.embedding_dim).astype(np.float32)
    codes = np.random.RandomState(2).randint(0, 8, (5, tts.codec.num_codebooks))
    voices = [Voice(vector), Voice(vector, codes, "one two", language="English", name="ben"), mx.array(vector)]
    requests = [
        Request(text, voices[i % 3], seed=i, rate=1 + i / 10, language="English", text_mode="full", sampling=SHORT)
        for i, text in enumerate(("One.", "Two three four.", "Five six.", "Seven eight nine ten.", "No."))
    ]
    here, there = {}, {}
    tts.generate_each(requests, here.__setitem__, numbers=range(10, 15))
    speakers = remote.Speakers("tcp://there:1", folder, "float32", tmp_path)
    assert speakers.sample_rate == tts.sample_rate and speakers.voice(vector) == tts.voice(vector)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        speakers.generate_each(requests, there.__setitem__, numbers=range(10, 15), batch_size=2)
    assert [parcel[4] for parcel in nearby] == [[13, 11], [12, 10], [14]]  # the longest first
    for number, speech in here.items():
        assert np.array_equal(np.array(speech.codes), np.array(there[number].codes))
        assert np.array_equal(np.array(speech.audio), np.array(there[number].audio))
        assert speech.warnings == there[number].warnings and speech.finish_reason == there[number].finish_reason
    cut = [str(one.message) for one in told if "did not end within" in str(one.message)]
    assert len({text.split(" did")[0] for text in cut} & {f"text {number + 1}" for number in here}) == len(here)


def test_what_the_guard_found_travels(nearby, model, checkpoint, tmp_path, monkeypatch):
    for name, value in {"FLOOR": 4, "PER_TOKEN": 0}.items():  # nothing is as short as that
        monkeypatch.setattr(watch, name, value)
    tts, folder = model("base"), checkpoint("base")
    voice = Voice(np.random.RandomState(1).standard_normal(tts.embedding_dim).astype(np.float32))
    requests = [Request("One two.", voice, seed=5, guard=(6, 7), text_mode="full")]
    here, there = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tts.generate_each(requests, here.__setitem__)
        remote.Speakers("tcp://there:1", folder, "float32", tmp_path).generate_each(requests, there.__setitem__)
    assert [one.seed for one in here[0].attempts] == [5, 6, 7] and here[0].failed == "too_long"
    assert (there[0].attempts, there[0].failed) == (here[0].attempts, here[0].failed)


def test_what_cannot_travel(nearby, checkpoint):
    speakers = remote.Speakers("tcp://there:1", checkpoint("base"), "float32")
    x = mx.ones(speakers.planner.config.talker.hidden_size)
    for request in (
        Request("One.", x, morph=x),
        Request(iter(["One."]), x),
        Request("One.", x, sampling=Sampling(logits_processors=[lambda tokens, logits: logits])),
    ):
        with pytest.raises(UnsupportedValue, match="cannot be sent to other machines"):
            speakers.generate_each([request], print)
    speakers.generate_each([], print)
    assert nearby == []


def test_another_model_is_refused(nearby, checkpoint):
    folder = str(checkpoint("base"))
    with pytest.raises(ClusterError, match=r"worker tcp://here has another model .*: its config\.json differs"):
        work.speak(folder, "float32", {"config.json": "0"}, [], [], {})
    with pytest.raises(ClusterError, match=r"worker tcp://here: model 'gone': no such folder") as refused:
        work.hear("gone", {}, 0, "a.wav", b"", False)
    assert refused.value.code == "no_cluster"


def test_the_usual_norm_needs_no_weights(model, checkpoint, tmp_path):
    tts, speakers = model("custom-voice"), remote.Speakers("tcp://there:1", checkpoint("custom-voice"), None, tmp_path)
    rows = tts.talker.embed_codec(mx.array(list(tts.config.talker.spk_id.values())))
    usual = float(mx.linalg.norm(rows.astype(mx.float32), axis=-1).mean())
    for casting in (speakers.planner, tts.casting):
        with pytest.warns(UserWarning, match=rf"is far from {usual:.2f}"):
            casting.resolve(mx.full(tts.embedding_dim, 1e3), Notes())


def test_recordings_that_are_not_sent(nearby, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "LARGEST", 3)
    (tmp_path / "large.wav").write_bytes(b"1234")
    (tmp_path / "bad.wav").write_bytes(b"1")
    for name, message in (
        ("large.wav", r"large\.wav has 4 bytes"),
        ("none.wav", r"none\.wav: no such file"),
        (".", r"audio \S+: not a regular file"),
        ("bad.wav", r"audio \S+bad\.wav cannot be read"),
    ):
        with pytest.raises(AudioError, match=message):
            remote.listen("tcp://there:1", checkpoint("base"), [tmp_path / name])


@pytest.mark.parametrize("address", ["there", "tcp://there", "http://there:1", "tcp://:1", "", "tcp://there:port"])
def test_an_address_that_is_none(address):
    with pytest.raises(ClusterError, match="is not the address of a scheduler") as refused:
        check_address(address)
    assert refused.value.param == "workers"


def test_without_dask(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs dask's distributed: pip install .*\[cluster\]"):
        check_address("tcp://there:1")
    (tmp_path / "play.txt").write_text("Hello.")
    (tmp_path / "v.json").write_text("[0.5]")
    speak = ("script", "render", "play.txt", "--voice", "v.json", "--model", "miniature", "--output", "a.wav")
    assert "needs dask's distributed" in refused(*speak, "--workers", "tcp://there:1")


class Future:
    def __init__(self, *work):
        self.work = work

    def result(self, timeout):
        outcome, function, arguments = self.work
        if outcome is not None:
            raise outcome
        return function(*arguments)


class Client:
    """As much of a dask Client as a Cluster uses, whose work has ended as `outcome` says."""

    outcome = None

    def __init__(self, address, **_):
        self.closed = False

    def nthreads(self):
        return {"tcp://one:1": 1}

    def get_versions(self, **_):
        return {"client": {"packages": dict.fromkeys(("mlx-qwen3tts", "mlx", "distributed"), "1")}, "workers": {}}

    def submit(self, function, *arguments, **_):
        return Future(self.outcome, function, arguments)

    def as_current(self):
        return warnings.catch_warnings()

    def close(self, timeout):
        self.closed = True


@needs_dask
def test_how_work_can_end(monkeypatch):
    import distributed
    from distributed.scheduler import KilledWorker

    monkeypatch.setattr(distributed, "Client", Client)
    monkeypatch.setattr(distributed, "wait", lambda running, **_: SimpleNamespace(done={next(iter(running))}))
    done = []
    with Cluster("tcp://there:1") as cluster:
        cluster.each(lambda number: number + 1, ((number,) for number in range(5)), done.append)
        assert sorted(done) == [1, 2, 3, 4, 5]
        for outcome, kind, message in (
            (KilledWorker("work", SimpleNamespace(address="one"), 3), ClusterError, "several workers"),
            (ModuleNotFoundError("none", name="mlx_qwen3tts"), ClusterError, "a worker lacks mlx_qwen3tts"),
            (AudioError("audio a.wav is silent", param="audio"), AudioError, "is silent"),
        ):
            Client.outcome = outcome
            with pytest.raises(kind, match=message):
                cluster.each(print, [(1,)], print)
    assert cluster.client.closed
