"""A voice that is steered while it speaks: it moves from the next frame on, and the same frames make it again."""

import asyncio
import collections
import json
import queue
import threading
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from convert.parity import recording, vector
from mlx_qwen3tts import Request, Voice
from mlx_qwen3tts.errors import UnsupportedValue, VoiceError
from mlx_qwen3tts.server import speaking, speech
from mlx_qwen3tts.server.engine import Engine
from mlx_qwen3tts.server.jobs import Ended, Failed, Job, Over, Sound, Turn
from mlx_qwen3tts.synthesis.decoding import SCHEDULE
from mlx_qwen3tts.synthesis.request import Sampling
from mlx_qwen3tts.synthesis.steering import Course, Steering

TEXT = "Hello there, the weather is fine; we'll walk to the old harbour, you and I."
A, B = Voice(vector(64, 1)), Voice(vector(64, 2))
FRAME, SAMPLES = 0.08, 1920
FRAMES = 15
SAMPLING = Sampling(max_tokens=FRAMES + 1)
LEAD = 0.4  # seconds


@pytest.fixture(scope="module")
def tts(model):
    return model("base")


@pytest.fixture(scope="module")
def engine(tts):
    with Engine(tts, max_batch=2, max_queue=4) as running:
        assert running.ready.wait(60)
        yield running


class Heard:
    """A job whose listener takes nothing until it is let go, so that it stands still in the middle."""

    def __init__(self, engine, voice=A, sampling=SAMPLING, **how):
        self.engine, self.events = engine, queue.Queue()
        requests = [Request(TEXT, voice, sampling=sampling)]
        self.job = engine.submit(requests, self.events.put, seed=5, **how)
        engine.caught_up(self.job, 0)

    def held(self):
        """Wait until it has paused."""
        while not self.engine.call(lambda: self.job.paused() or self.job.over).result(60):
            pass
        assert not self.job.over
        return self

    def rest(self):
        """Let it go; all samples of it."""
        self.engine.caught_up(self.job, 10**9)
        parts = []
        while isinstance(event := self.events.get(timeout=60), Sound):
            parts.append(event.samples)
        if isinstance(event, Failed):
            raise event.error
        assert isinstance(event, Ended)
        return np.concatenate(parts)


def steered(engine, voice, seconds=LEAD, **how):
    """(the samples of a speech whose voice was steered in the middle, from which frame on)."""
    heard = Heard(engine, lead=LEAD, **how).held()
    frame = engine.steer(heard.job, voice, seconds).result(60)
    assert 1 < frame < FRAMES
    return heard.rest(), frame


def plain(tts, voice=A, **how):
    return np.array(tts.generate(Request(TEXT, voice, sampling=SAMPLING, seed=5, **how)).audio)


def same(one, other):
    return one.shape == other.shape and np.abs(one - other).max() <= 1e-5


def test_a_course_goes_straight_to_each_of_its_ends():
    zero, one, two = (np.full(3, x, np.float32) for x in (0, 1, 2))
    course = Course(zero)
    assert course.at(7) is zero
    course.steer(4, one, 4)
    course.steer(6, two, 1)
    assert [float(course.at(frame)[0]) for frame in range(3, 8)] == [0, 0.25, 0.5, 2, 2]
    assert course.at(6) is course.at(99) is two
    course.steer(5, zero, 2)
    assert [float(course.at(frame)[0]) for frame in range(3, 8)] == [0, 0.25, 0.125, 0, 0], "the later leg is forgotten"


def test_steering_to_where_it_is_changes_nothing(engine, tts):
    assert same(steered(engine, A)[0], plain(tts))


@pytest.mark.parametrize("seconds", [0, 0.4])
def test_it_is_a_morph_that_begins_at_that_frame(engine, tts, seconds):
    """Whose equality with the official talker is a golden."""
    sound, frame = steered(engine, B, seconds)
    frames = max(1, round(seconds / FRAME))

    def morph(at):
        done = np.clip(round(at / FRAME) - frame + 1, 0, frames) / frames
        return A.embedding + done * (B.embedding - A.embedding)

    assert same(sound, plain(tts, morph=morph))
    assert same(sound[: frame * SAMPLES], plain(tts)[: frame * SAMPLES]) and not same(sound, plain(tts))


def test_what_was_steered_is_made_again_from_its_frames(engine):
    sound, frame = steered(engine, B)
    again = Heard(engine, turns=[Turn(frame, B, LEAD)])
    assert same(again.rest(), sound)


def test_a_row_among_others_is_steered_alone(engine, tts):
    alone, frame = steered(engine, B)
    other, turned = Heard(engine, B, lead=60), Heard(engine, turns=[Turn(frame, B, LEAD)])
    assert same(turned.rest(), alone) and same(other.rest(), plain(tts, B))


def test_the_next_piece_goes_on_where_the_voice_is(tts):
    def planned(voice):
        request = Request(TEXT, voice, sampling=SAMPLING, seed=5)
        return tts.planner.plan(request, SCHEDULE), request

    job = Job(collections.deque(), lambda event: None, SCHEDULE, 5, turns=[Turn(0, B, 0), Turn(10, A, 0.16)])
    halfway = Voice((A.embedding + B.embedding) / 2)
    for frames, voice in ((0, B), (10, halfway), (11, A), (20, A)):
        job.frames = frames
        job.begin(*planned(A), tts)
        wanted = planned(voice)[0].utterance.part.prompt.embeddings
        assert np.abs(np.array(job.plan.utterance.part.prompt.embeddings - wanted)).max() < 1e-6
        assert job.next_frame == frames + 1


def test_a_speech_with_a_lead_waits_for_its_listener(engine, tts):
    heard = Heard(engine, lead=0.5).held()
    for _ in range(20):
        engine.call(lambda: None).result(10)  # it goes on turning meanwhile
    assert 0.5 < heard.job.given / 24000 < 0.5 + 6 * FRAME
    assert same(heard.rest(), plain(tts))


def test_sound_comes_as_it_is_heard(monkeypatch):
    times, clock = [], SimpleNamespace(seconds=0.0)

    async def sleep(seconds):
        clock.seconds += seconds

    async def made():
        for _ in range(5):
            clock.seconds += 0.01
            yield np.zeros(2400, np.float32)

    async def heard():
        async for _ in speaking.paced(made(), 24000, 0.25):
            times.append(round(clock.seconds, 2))

    loop = SimpleNamespace(time=lambda: clock.seconds)
    monkeypatch.setattr(speaking, "asyncio", SimpleNamespace(get_running_loop=lambda: loop, sleep=sleep))
    asyncio.run(heard())
    assert times == [0.01, 0.02, 0.03, 0.07, 0.17]


def test_what_cannot_be_steered_says_why(engine, tts, tmp_path):
    def refused(error, message, voice=A, to=B, **how):
        heard = Heard(engine, voice, lead=LEAD, **how).held()
        with pytest.raises(error, match=message):
            engine.steer(heard.job, to, 0.4).result(60)
        engine.cancel(heard.job)
        return heard.job

    icl = tts.clone(recording(tmp_path / "a.wav", 1, 1.0), ref_text="one two")
    refused(UnsupportedValue, "reference codes keep their speaker", icl)
    job = refused(VoiceError, "63 dimensions", to=Voice(vector(63, 1)))
    engine.call(lambda: None).result(10)
    with pytest.raises(Over):
        engine.steer(job, B, 0.4).result(60)
    with pytest.raises(UnsupportedValue, match="reference codes"):
        Heard(engine, icl, turns=[Turn(3, B, 0.4)]).rest()
    events = queue.Queue()
    job = engine.submit([Request(TEXT, A, morph=B, sampling=SAMPLING)], events.put, lead=LEAD)
    engine.caught_up(job, 0)
    assert isinstance(events.get(timeout=60), Sound)
    with pytest.raises(UnsupportedValue, match="morph_to"):
        engine.steer(job, B, 0.4).result(60)
    engine.cancel(job)


def test_a_designed_voice_has_nothing_to_steer(model):
    tts, job = model("voice-design"), Job(collections.deque(), lambda event: None, SCHEDULE, 5)
    request = Request(TEXT, instruct="A voice.", sampling=SAMPLING)
    job.begin(tts.planner.plan(request, SCHEDULE), request, tts)
    with pytest.raises(UnsupportedValue, match="no speaker slot"):
        job.steer(B, 0.4, tts)


# Over HTTP

SPEECH = {
    "input": TEXT, "voice": "anna", "seed": 3, "max_new_tokens": FRAMES + 1, "response_format": "pcm",
    "stream_format": "audio",
}  # fmt: skip


@pytest.fixture
def gate(monkeypatch):
    """Until it is set, a speech with a lead stands still after its first sound."""
    opened = threading.Event()

    async def held(sounds, rate, lead):
        async for samples in sounds:
            yield samples
            while not opened.is_set():
                await asyncio.sleep(0.005)

    monkeypatch.setattr(speech, "paced", held)
    yield opened
    opened.set()


def test_a_running_speech_is_steered_and_made_again(client, url, gate):
    with client.stream("POST", "/v1/audio/speech", json={**SPEECH, "lead": 0.4}) as running:
        parts = running.iter_bytes()
        sound = next(parts)
        steer = f"{url}/v1/audio/speech/{running.headers['x-request-id']}/steer"
        told = httpx.post(steer, json={"voice": "anna*0.2 + ben*0.8", "seconds": 0.3}).json()
        assert told["object"] == "audio.speech.steer" and 0 < told["frame"] < FRAMES
        gate.set()
        assert told["at"] == pytest.approx(told["frame"] * FRAME) and told["seconds"] == 0.3
        sound += b"".join(parts)
    over = httpx.post(steer, json={"voice": "ben"})
    assert over.status_code == 404 and over.json()["error"]["code"] == "not_found"
    turn = {"frame": told["frame"], "voice": "anna*0.2 + ben*0.8", "seconds": 0.3}
    again = client.post("/v1/audio/speech", json={**SPEECH, "steering": [turn]}).content
    unsteered = client.post("/v1/audio/speech", json=SPEECH).content
    found, wanted, other = (np.frombuffer(data, "<i2").astype(int) for data in (sound, again, unsteered))
    assert len(found) == len(wanted) and np.abs(found - wanted).max() <= 1
    before = told["frame"] * SAMPLES
    assert np.abs(found[:before] - other[:before]).max() <= 1 and np.abs(found - other[: len(found)]).max() > 100


BAD = [
    ({}, "voice", "give one of voice and speaker_embedding"),
    ({"voice": "anna", "speaker_embedding": [0.0] * 64}, "voice", "give one of"),
    ({"voice": 5}, "voice", "must be a string"),
    ({"voice": "nobody"}, "voice", "'nobody' is not"),
    ({"voice": "../anna.safetensors"}, "voice", "is not"),
    ({"voice": "anna + * ben"}, "voice", "\n"),
    ({"speaker_embedding": [1.0] * 3}, "voice", "3 dimensions"),
    ({"speaker_embedding": [1.0] * 65}, "speaker_embedding", "at most 64"),
    ({"voice": "ben", "seconds": -1}, "seconds", "not within 0 to 60"),
    ({"voice": "ben", "seconds": "1"}, "seconds", "must be a number"),
]


def test_bad_turns_leave_the_speech_alone(client, url, gate):
    with client.stream("POST", "/v1/audio/speech", json={**SPEECH, "lead": 0.4}) as running:
        parts = running.iter_bytes()
        sound = next(parts)
        steer = f"{url}/v1/audio/speech/{running.headers['x-request-id']}/steer"
        for body, param, message in BAD:
            answer = httpx.post(steer, json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, param) and message in error["message"], body
        assert httpx.post(steer, content="{}").status_code == 415
        foreign = httpx.post(steer, json={"voice": "ben"}, headers={"origin": "http://evil.example"})
        assert foreign.status_code == 403
        gate.set()
        sound += b"".join(parts)
    unsteered = client.post("/v1/audio/speech", json=SPEECH).content
    found, wanted = (np.frombuffer(data, "<i2").astype(int) for data in (sound, unsteered))
    assert np.abs(found - wanted).max() <= 1


BAD_FIELDS = [
    ({"lead": 0.4, "stream_format": None}, "lead"),
    ({"lead": 0}, "lead"),
    ({"lead": "1"}, "lead"),
    ({"steering": {}}, "steering"),
    ({"steering": [1]}, "steering"),
    ({"steering": [{"frame": 3}]}, "steering"),
    ({"steering": [{"voice": "ben"}]}, "steering"),
    ({"steering": [{"frame": -1, "voice": "ben"}]}, "frame"),
    ({"steering": [{"frame": 5, "voice": "ben"}, {"frame": 4, "voice": "ben"}]}, "frame"),
    ({"steering": [{"frame": 1, "voice": "nobody"}]}, "voice"),
    ({"steering": [{"frame": 1, "voice": "ben"}] * 101}, "steering"),
    ({"steering": [{"frame": 1, "voice": "ben"}], "morph_to": "ben"}, "steering"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS, ids=[str(row[0])[:50] for row in BAD_FIELDS])
def test_bad_fields(client, fields, param):
    answer = client.post("/v1/audio/speech", json={**SPEECH, **fields})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "field", [{"lead": 1.0}, {"steering": [{"frame": 1, "voice": "ben"}]}], ids=["lead", "steering"]
)
def test_a_socket_takes_neither(url, field):
    with connect(f"{url.replace('http', 'ws', 1)}/v1/audio/speech/stream") as socket:
        socket.send(json.dumps({"type": "session.config", "voice": "anna", **field}))
        error = json.loads(socket.recv(timeout=30))["error"]
    assert error["code"] == "unsupported_value" and error["param"] in field


def test_a_guarded_speech_that_begins_again_begins_with_its_first_voice(tts):
    course = Course(A.embedding)
    steering = Steering(tts.talker, tts.prompt(TEXT, A), course)
    course.steer(3, B.embedding, 1)
    assert not steering.due(1) and steering.due(3)
    steering._written = steering.voice_at(3)  # as `revise` does
    assert not steering.due(4)
    assert not steering.due(1) and not steering.due(2) and steering.due(3)  # another attempt, from its first frame on
