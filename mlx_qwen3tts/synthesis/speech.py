"""What speaking gives: Speech, whole, or a SpeechStream of Chunks."""

import contextlib
import itertools
import time
import warnings
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ..audio.writing import write_audio
from ..networks.codec.codec import decode


@dataclass
class Speech:
    """audio [samples] float32 within ±1; codes [frames, 16] int32; finish_reason "stop" or "length".

    stats: seconds of audio, frames, elapsed seconds, rtf, frames_per_second, peak_memory (bytes), seed; where chunks
    were waited for, also first_audio and largest_gap (seconds). In a batch elapsed, rtf and frames_per_second are those
    of the whole batch.
    """

    audio: mx.array
    sample_rate: int
    codes: mx.array
    finish_reason: str
    stats: dict = field(default_factory=dict)

    def save(self, path):
        """Write .wav, .flac, .mp3 or .ogg by extension; the file appears whole or not at all."""
        write_audio(path, np.array(self.audio), self.sample_rate)


@dataclass
class Chunk:
    """A piece of a speech, decoded: audio [samples] float32 within ±1; sample_rate; codes [frames, 16] int32."""

    audio: mx.array
    sample_rate: int
    codes: mx.array


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while speaking; `speeches` is what was made so far, of a batch one for each row that has spoken."""

    def __init__(self, speeches):
        super().__init__("interrupted")
        self.speeches = speeches

    @property
    def speech(self):
        return self.speeches[0]


@contextlib.contextmanager
def wired_limit():
    """Keep the weights in a Mac's memory while speaking, as mlx-lm does; elsewhere there is nothing to do."""
    if not mx.metal.is_available():
        yield
        return
    limit = mx.device_info()["max_recommended_working_set_size"]
    held = mx.get_active_memory()
    if held > 0.9 * limit:
        warnings.warn(
            f"the model takes {held / 1e9:.1f} GB, close to the {limit / 1e9:.1f} GB that this Mac keeps in memory; "
            "it may be slow, quantise it",
            stacklevel=3,
        )
    old = mx.set_wired_limit(limit)
    try:
        yield
    finally:
        mx.synchronize()
        mx.set_wired_limit(old)


def make_stats(seconds, frames, start, **more):
    """The statistics of a speech that was begun at `start` (of time.perf_counter) and is done now."""
    elapsed = time.perf_counter() - start
    return {
        "seconds": seconds,
        "frames": frames,
        "elapsed": elapsed,
        "rtf": elapsed / seconds if seconds else None,
        "frames_per_second": frames / elapsed,
        "peak_memory": mx.get_peak_memory(),
        **more,
    }


class SpeechStream:
    """Iterate to get Chunks, each as soon as it is decoded. `close()`, or losing it, ends the work and frees it.

    Once it is over: `finish_reason`, and `stats` as of Speech.
    """

    def __init__(self, decoding, sample_rate, sampling, seed, start):
        """decoding: Decoding; sampling: Sampling; start: when it was asked for, of time.perf_counter."""
        self._decoding, self._rate, self._sampling, self._seed = decoding, sample_rate, sampling, seed
        self._start, self._times = start, []
        self.finish_reason, self.stats = None, {}
        self._chunks, self._begun = self._run(), False

    def __iter__(self):
        return self

    def __next__(self):
        self._begun = True
        return next(self._chunks)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Stop speaking and let go of everything."""
        self._begun = True
        self._chunks.close()
        self._decoding = None

    def _run(self, wait=True):
        samples = 0
        with wired_limit():
            for audio, codes in self._decoding:
                if wait:
                    mx.eval(audio)
                    self._times.append(time.perf_counter() - self._start)
                samples += audio.shape[0]
                yield Chunk(audio, self._rate, codes)
        (self.finish_reason,) = self._decoding.generation.finish_reasons
        self.stats = self._measure(samples)
        if self.finish_reason == "length":
            warn_of_length(self._sampling)

    def _measure(self, samples):
        stats = make_stats(samples / self._rate, self._decoding.frames, self._start, seed=self._seed)
        if self._times:
            gaps = [later - earlier for earlier, later in itertools.pairwise(self._times)]
            stats |= {"first_audio": self._times[0], "largest_gap": max(gaps, default=0.0)}
        return stats

    def speech(self, heard=None):
        """All of it as Speech. heard: called with each Chunk as soon as it is decoded; without it nothing is waited for
        on the way. Raises Interrupted on Ctrl-C, RuntimeError where some of it has been taken already."""
        if self._begun:
            raise RuntimeError("the stream was begun already; ask for another one")
        self._begun, chunks = True, []
        try:
            for chunk in self._run(wait=heard is not None):
                chunks.append(chunk)
                if heard:
                    heard(chunk)
            return self._joined(chunks, self.finish_reason)
        except KeyboardInterrupt:
            if self._decoding.held:
                audio, codes = self._decoding.rest()
                chunks.append(Chunk(audio, self._rate, codes))
                if heard:
                    heard(chunks[-1])
            if not chunks:
                raise
            raise Interrupted([self._joined(chunks, "interrupted")]) from None

    def _joined(self, chunks, reason):
        audio = mx.concatenate([chunk.audio for chunk in chunks])
        codes = mx.concatenate([chunk.codes for chunk in chunks])
        mx.eval(audio, codes)
        return Speech(audio, self._rate, codes, reason, self._measure(audio.shape[0]))


def speak_batch(generation, codec, contexts, sampling, number=0, progress=None):
    """A list of Speech, one for each of the generation's prompts.

    contexts: for each None or the codes of what its sound continues; number: of the first one among all texts, which
    warnings name; progress: called with the number of steps made. Raises Interrupted on Ctrl-C once all have spoken.
    """
    mx.reset_peak_memory()
    start, spoken = time.perf_counter(), [[] for _ in contexts]

    def decoded(interrupted):
        speeches = []
        for codes, context, reason, seed in zip(
            spoken, contexts, generation.finish_reasons, generation.seeds, strict=True
        ):
            codes = mx.concatenate(codes).astype(mx.int32)
            audio = decode(codec.decoder, codes, context)
            own = {"seconds": audio.shape[0] / codec.sample_rate, "frames": len(codes), "seed": seed}
            speeches.append(Speech(audio, codec.sample_rate, codes, "interrupted" if interrupted else reason, own))
            if reason == "length" and not interrupted:
                warn_of_length(sampling, f"text {number + len(speeches)}")
        seconds, frames = (sum(speech.stats[name] for speech in speeches) for name in ("seconds", "frames"))
        whole = make_stats(seconds, frames, start)
        for speech in speeches:
            speech.stats = whole | speech.stats
        return speeches

    try:
        with wired_limit():
            for steps, frame in enumerate(generation, 1):
                for i, row in enumerate(frame.rows):
                    spoken[row].append(frame.codes[i : i + 1])
                if progress:
                    progress(steps)
        return decoded(interrupted=False)
    except KeyboardInterrupt:
        if not all(spoken):
            raise
        raise Interrupted(decoded(interrupted=True)) from None


def warn_of_length(sampling, which="the speech"):
    way_out = "raise max_tokens or try another seed" if sampling.do_sample else "raise max_tokens"
    warnings.warn(f"{which} did not end within {sampling.max_tokens} tokens and was cut; {way_out}", stacklevel=4)
