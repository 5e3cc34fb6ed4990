"""The worker that owns the model: what is spoken together is what is spoken alone, and nobody waits for nothing."""

import functools
import queue
import random
import threading
import time

import mlx.core as mx
import numpy as np
import pytest

from convert.parity import vector
from mlx_qwen3tts import Request, Voice
from mlx_qwen3tts.server.engine import Engine
from mlx_qwen3tts.server.jobs import Busy, Ended, EngineFault, Failed, Sound, Stopping
from mlx_qwen3tts.synthesis.live import Feed
from mlx_qwen3tts.synthesis.request import Sampling

TEXTS = ["One.", "Hello, the weather is fine today.", "The user, as is, in the assistant; hello hello hello."]
FRAMES = 9
SHORT = Sampling(max_tokens=FRAMES + 1)


class Listener:
    """Collects the events of a job."""

    def __init__(self):
        self.events = queue.Queue()

    def deliver(self, event):
        assert threading.current_thread().name == "mlx_qwen3tts engine"
        self.events.put(event)

    def all(self, seconds=60):
        """(samples, the last event)."""
        parts = []
        while isinstance(event := self.events.get(timeout=seconds), Sound):
            parts.append(event.samples)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32), event


@pytest.fixture(scope="module")
def tts(model):
    return model("base")


@pytest.fixture(scope="module")
def voice():
    return Voice(vector(64, 1))


@pytest.fixture(scope="module")
def engine(tts):
    with Engine(tts, max_batch=4, max_queue=4) as running:
        assert running.ready.wait(60)
        yield running
    assert not running.alive and running.load == 0


@pytest.fixture(scope="module")
def alone(tts, voice):
    """What a request speaks by itself."""

    @functools.cache
    def spoken(text, seed, sampling=SHORT):
        return np.array(tts.generate(Request(text, voice, sampling=sampling, seed=seed)).audio)

    return spoken


def test_speeches_from_several_threads_are_what_they_are_alone(engine, alone, voice):
    wanted = {
        seed: (TEXTS[seed % 3], Sampling(max_tokens=6 + seed, temperature=[None, 0.6][seed % 2])) for seed in range(7)
    }
    heard = {seed: Listener() for seed in wanted}

    def ask(seed):
        time.sleep(random.Random(seed).random() / 10)
        text, sampling = wanted[seed]
        engine.submit([Request(text, voice, sampling=sampling)], heard[seed].deliver, stream=seed % 3 > 0, seed=seed)

    threads = [threading.Thread(target=ask, args=[seed]) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, (text, sampling) in wanted.items():
        samples, end = heard[seed].all()
        np.testing.assert_allclose(samples, alone(text, seed, sampling), atol=1e-5)
        assert isinstance(end, Ended) and end.frames * 1920 == len(samples)
        assert end.finish_reason == "length" and "was cut" in end.warnings[0]


def test_a_full_queue_is_refused_at_once_and_says_when_to_come_back(engine, voice):
    long = Request(TEXTS[2], voice, sampling=Sampling(max_tokens=400))
    listeners = [Listener() for _ in range(8)]
    jobs = [engine.submit([long], listener.deliver) for listener in listeners]
    start = time.perf_counter()
    with pytest.raises(Busy, match="8 speeches") as refused:
        engine.submit([long], Listener().deliver)
    assert time.perf_counter() - start < 0.1 and 1 <= refused.value.retry_after <= 600
    for job in jobs:
        engine.cancel(job)
    assert engine.call(lambda: engine.load).result(10) == 0
    listener = Listener()
    engine.submit([Request(TEXTS[0], voice, sampling=SHORT)], listener.deliver)
    assert isinstance(listener.all()[1], Ended)


def test_more_tokens_than_the_model_has_positions_for_are_capped(engine, voice, tts):
    listener = Listener()
    job = engine.submit([Request(TEXTS[0], voice, sampling=Sampling(max_tokens=10**9))], listener.deliver)
    assert isinstance(listener.events.get(timeout=30), Sound)
    context = tts.config.talker.max_position_embeddings
    assert engine.call(lambda: job.plan.config.max_tokens + job.plan.positions).result(10) == context
    engine.cancel(job)


def test_who_joins_others_is_heard_at_most_three_frames_later_than_alone(engine, voice):
    def steps(seed):
        listener = Listener()
        before = engine.counts["steps"]
        engine.call(lambda: None).result(10)  # as a voice is looked for
        engine.submit([Request(TEXTS[0], voice, sampling=SHORT)], listener.deliver, seed=seed)
        assert isinstance(listener.events.get(timeout=30), Sound)
        return engine.counts["steps"] - before, listener

    alone, listener = steps(1)
    listener.all()
    others = [Listener() for _ in range(3)]
    endless = Request(TEXTS[2], voice, sampling=Sampling(max_tokens=400))
    jobs = [engine.submit([endless], other.deliver) for other in others]
    for other in others:
        other.events.get(timeout=30)
    joined, listener = steps(2)
    assert joined <= alone + 3
    listener.all()
    for job in jobs:
        engine.cancel(job)


def test_who_leaves_frees_the_row_within_two_frames(engine, voice):
    listener = Listener()
    job = engine.submit([Request(TEXTS[2], voice, sampling=Sampling(max_tokens=2000))], listener.deliver)
    assert isinstance(listener.events.get(timeout=30), Sound)
    steps = engine.counts["steps"]
    engine.cancel(job)
    engine.call(lambda: None).result(10)
    assert engine.running == 0 and engine.counts["steps"] - steps <= 2
    assert engine.call(lambda: engine.decoding.generation.unfinished).result(10) is False


def test_a_long_text_gives_its_row_to_those_who_wait(tts, voice, alone):
    """With one row: two pieces of a long text, and a short text that came later and is heard between them."""
    order, done = [], threading.Semaphore(0)

    def listener(name):
        def deliver(event):
            order.append(name)
            if not isinstance(event, Sound):
                done.release()

        return deliver

    with Engine(tts, max_batch=1) as engine:
        assert engine.ready.wait(60)
        # A stand-in for a text that ends by itself, which random weights seldom do.
        original = engine._next_piece

        def next_piece(utterance, job):
            utterance.finish_reason = "stop"
            original(utterance, job)

        engine._next_piece = next_piece
        engine.submit([Request(text, voice, sampling=SHORT) for text in TEXTS], listener("long"), seed=5)
        engine.submit([Request("Short.", voice, sampling=SHORT)], listener("short"))
        for _ in range(2):
            assert done.acquire(timeout=60)
    first = order.index("short")
    assert 0 < first < len(order) - 2 and "long" in order[order.index("short") :]


def test_what_cannot_be_spoken_fails_alone(engine, alone, voice):
    good, bad = Listener(), Listener()
    engine.submit([Request("word " * 10_000, voice)], bad.deliver)
    engine.submit([Request(TEXTS[1], voice, sampling=SHORT)], good.deliver, seed=3)
    assert bad.all()[1].error.code == "text_too_long"
    assert len(good.all()[0]) == len(alone(TEXTS[1], 3))


def test_a_fault_of_ours_is_told_and_the_next_request_served(tts, voice, alone, monkeypatch, caplog):
    with Engine(tts, max_batch=1) as engine:
        assert engine.ready.wait(60)
        step = engine.decoding.step
        monkeypatch.setattr(engine.decoding, "step", lambda: 1 / 0)
        lost = Listener()
        engine.submit([Request(TEXTS[1], voice, sampling=SHORT)], lost.deliver)
        event = lost.all()[1]
        assert isinstance(event, Failed) and isinstance(event.error, EngineFault)
        assert "division" not in str(event.error) and "ZeroDivisionError" in caplog.text
        assert step is not None
        served = Listener()
        engine.submit([Request(TEXTS[1], voice, sampling=SHORT)], served.deliver, seed=3)
        np.testing.assert_allclose(served.all()[0], alone(TEXTS[1], 3), atol=1e-5)
        with pytest.raises(ZeroDivisionError):
            engine.call(lambda: 1 / 0).result(10)
        assert engine.alive


def test_text_that_is_being_written_holds_up_nobody(engine, alone, voice):
    """Four live texts, as many as there are rows, wait for their writers; others speak meanwhile."""
    feeds, listeners = [], []
    for seed in range(4):
        feeds.append(Feed(engine.wake))
        listeners.append(Listener())
        feeds[-1].write(TEXTS[2][:14])
        engine.submit([Request(feeds[-1], voice, sampling=SHORT)], listeners[-1].deliver, seed=seed)
    for seed in range(5, 8):
        other = Listener()
        engine.submit([Request(TEXTS[1], voice, sampling=SHORT)], other.deliver, seed=seed)
        np.testing.assert_allclose(other.all()[0], alone(TEXTS[1], seed), atol=1e-5)
    for feed in feeds:
        feed.write(TEXTS[2][14:])
        feed.close()
    for seed, listener in enumerate(listeners):
        np.testing.assert_allclose(listener.all()[0], alone(TEXTS[2], seed), atol=1e-5)


def test_stopping_cuts_what_is_spoken_and_refuses_what_waits(tts, voice):
    endless = Request(TEXTS[2], voice, sampling=Sampling(max_tokens=30_000))
    spoken, waiting = Listener(), Listener()
    engine = Engine(tts, max_batch=1).__enter__()
    assert engine.ready.wait(60)
    engine.submit([endless], spoken.deliver)
    engine.submit([endless], waiting.deliver)
    assert isinstance(spoken.events.get(timeout=30), Sound)
    start = time.perf_counter()
    engine.close(0.3)
    assert time.perf_counter() - start < 3 and not engine.alive
    assert spoken.all()[1].finish_reason == "interrupted"
    assert isinstance(waiting.all()[1].error, Stopping)
    with pytest.raises(Stopping):
        engine.submit([endless], spoken.deliver)
    with pytest.raises(Stopping):
        engine.call(lambda: None).result(1)


def test_nothing_that_is_handed_in_at_the_end_is_lost(tts, voice):
    """From many threads, while the worker ends: every job has an end or is refused, every function an answer."""
    engine = Engine(tts, max_batch=4, max_queue=400).__enter__()
    assert engine.ready.wait(60)
    ends, futures, refused = [], [], []

    def ask():
        for _ in range(40):
            listener = Listener()
            try:
                engine.submit([Request("One.", voice, sampling=SHORT)], listener.deliver)
                ends.append(listener)
            except Busy:
                refused.append(listener)
            futures.append(engine.call(lambda: None))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    engine.close(0.05)
    for thread in threads:
        thread.join()
    for listener in ends:
        assert isinstance(listener.all(5)[1], Ended | Failed)
    for future in futures:
        assert future.exception(5) is None or isinstance(future.exception(), Stopping)
    assert engine.load == 0 and len(ends) + len(refused) == 160


def test_what_comes_between_the_end_and_the_thread_s_last_breath_is_refused(tts, monkeypatch):
    """A function that is handed in when nobody looks into the inbox any more, while the thread still lives."""
    held, ending = threading.Event(), threading.Event()
    engine = Engine(tts, max_batch=1).__enter__()
    assert engine.ready.wait(60)
    end = engine.end
    monkeypatch.setattr(engine, "end", lambda: (end(), ending.set(), held.wait(20)))
    engine.stop(0)
    assert ending.wait(20) and engine.thread.is_alive() and not engine.alive
    with pytest.raises(Stopping):
        engine.call(lambda: None).result(1)
    held.set()
    engine.close()


def test_a_listener_that_fails_harms_nobody_else(engine, alone, voice, caplog):
    served = Listener()
    engine.submit([Request(TEXTS[1], voice, sampling=SHORT)], lambda event: 1 / 0, seed=1)
    engine.submit([Request(TEXTS[1], voice, sampling=SHORT)], served.deliver, seed=3)
    np.testing.assert_allclose(served.all()[0], alone(TEXTS[1], 3), atol=1e-5)
    assert engine.call(lambda: engine.load).result(10) == 0 and "a listener failed" in caplog.text


@pytest.mark.parametrize("where", ["warm_up", "take"])
def test_a_worker_that_ends_with_a_fault_says_so(tts, voice, monkeypatch, where, caplog):
    engine, listener = Engine(tts, max_batch=1), Listener()
    if where == "warm_up":
        monkeypatch.setattr(engine, "warm_up", lambda: 1 / 0)
        engine.__enter__()
    else:
        engine.__enter__()
        assert engine.ready.wait(60)
        engine.submit([Request(TEXTS[2], voice, sampling=Sampling(max_tokens=2000))], listener.deliver)
        assert isinstance(listener.events.get(timeout=30), Sound)
        monkeypatch.setattr(engine, "take", lambda wait: 1 / 0)
        assert isinstance(listener.all()[1].error, EngineFault)
    engine.thread.join(20)
    assert isinstance(engine.fault, ZeroDivisionError) and not engine.alive and engine.load == 0
    with pytest.raises(Stopping):
        engine.submit([Request("One.", voice)], listener.deliver)
    with pytest.raises(Stopping):
        engine.call(lambda: None).result(1)


def test_the_worker_leaves_no_streams_of_its_thread_behind(tts, monkeypatch):
    """MLX aborts the process at its end, now and then, where a thread has left some."""
    cleared, clear = [], mx.clear_streams
    monkeypatch.setattr(mx, "clear_streams", lambda: (cleared.append(threading.current_thread().name), clear()))
    with Engine(tts, max_batch=1) as engine:
        assert engine.ready.wait(60)
    assert "mlx_qwen3tts engine" in cleared


def test_a_slow_reader_is_waited_for_between_the_pieces_of_a_long_text(tts, voice, monkeypatch):
    """Not more than a piece and the backlog waits for it; others are served meanwhile."""
    monkeypatch.setattr("mlx_qwen3tts.server.engine.BACKLOG", 0.5)
    with Engine(tts, max_batch=1) as engine:
        assert engine.ready.wait(60)
        original = engine._next_piece

        def next_piece(utterance, job):
            utterance.finish_reason = "stop"  # random weights seldom end by themselves
            original(utterance, job)

        monkeypatch.setattr(engine, "_next_piece", next_piece)
        slow, quick = Listener(), Listener()
        job = engine.submit([Request(text, voice, sampling=SHORT) for text in TEXTS], slow.deliver)
        engine.caught_up(job, 0)
        engine.submit([Request(TEXTS[0], voice, sampling=SHORT)], quick.deliver)
        assert isinstance(quick.all()[1], Ended)
        assert job.given == FRAMES * 1920 and len(job.requests) == 2 and not job.over
        engine.caught_up(job, job.given)
        for _ in range(2):
            while job.unheard < FRAMES * 1920 and not job.over:
                time.sleep(0.01)
            engine.caught_up(job, job.given)
        assert isinstance(slow.all()[1], Ended) and job.given == 3 * FRAMES * 1920
