"""Conversations whose truth is known: made-up ones whose voices are tones, and recordings spliced in alternation.

The diarization error rate is pyannote.metrics' with a collar of 0 s, overlapping speech included.
"""

import mlx.core as mx
import numpy as np
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from mlx_qwen3tts import VoiceSpace
from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.audio.regions import RATE
from mlx_qwen3tts.networks.speaker.mel import log_mel
from tests.voices import real

CARRIERS = np.array([300, 500, 800, 1100, 1500, 2000, 2600, 3300])  # Hz: each voice is a tone of its own
DIMENSION = 256
LEAST = 4.0  # seconds that each speaks at least; some three are needed to be found unasked
RECORDINGS = ("english_ryan", "italian_vivian", "en_ohenry_chenevert")


def conversation(seed, speakers, seconds=60, turn=(1.2, 6), pause=(0.35, 1.2), direct=0.3, share=None):
    """Turns [(start, end, speaker)]: the first of each in order, then at random, a share of them without a pause."""
    random = np.random.default_rng(seed)
    at, turns = random.uniform(0.2, 1), []
    while at < seconds:
        weights = np.ones(speakers) if share is None else np.array(share)
        if turns and share is None and speakers > 1:
            weights[turns[-1][2]] = 0
        drawn = int(random.choice(speakers, p=weights / weights.sum()))
        length = random.uniform(*turn)
        turns.append((at, at + length, len(turns) if len(turns) < speakers else drawn))
        at += length + (0 if random.random() < direct else random.uniform(*pause))
        if at >= seconds and (shy := [k for k in range(speakers) if spoken(turns, k) < LEAST]):
            turns.append((at, at + LEAST, shy[0]))
            at, seconds = at + LEAST + 0.5, at + LEAST + 0.5  # everyone speaks so long that it can be found
    return turns


def spoken(turns, voice):
    """Seconds in which a voice speaks."""
    return sum(end - start for start, end, who in turns if who == voice)


def sound(turns, seed, snr=25):
    """The turns as tones whose loudness rises and falls like syllables, in white noise."""
    random = np.random.default_rng(seed + 1)
    samples = random.normal(0, 0.1 * 10 ** (-snr / 20), int((max(end for _, end, _ in turns) + 0.7) * RATE))
    for start, end, voice in turns:
        time = np.arange(int(end * RATE) - int(start * RATE)) / RATE
        loudness = 0.25 + 0.75 * np.abs(np.sin(np.pi * random.uniform(3, 5) * time + random.uniform(0, 3)))
        samples[int(start * RATE) :][: time.size] += 0.2 * loudness * np.sin(2 * np.pi * CARRIERS[voice] * time)
    return samples.astype(np.float32)


class Known:
    """Gives each window the mean of its voices' vectors [K, D], weighted by how long each tone sounds, plus noise.

    noise: its norm for 1.5 s; it grows as windows shorten, and lies in the directions `basis` [M, D] alone.
    """

    def __init__(self, vectors, seed, noise, basis=None, tones=CARRIERS, loudness=0.02):
        self.vectors, self.noise, self.random = vectors, noise, np.random.default_rng(seed)
        self.bins, self.least = tones[: len(vectors)] // 50, loudness * 120
        self.basis = np.eye(vectors.shape[1]) if basis is None else basis
        self.basis = self.basis / np.sqrt(np.square(self.basis).sum(axis=1).mean() * len(self.basis))

    def __call__(self, samples):
        samples = np.array(samples)
        frames = samples[:, : samples.shape[1] // 480 * 480].reshape(len(samples), -1, 480) * np.hanning(480)  # 20 ms
        sounding = np.abs(np.fft.rfft(frames))[:, :, self.bins] > self.least
        shares = (sounding / np.maximum(sounding.sum(axis=2, keepdims=True), 1)).sum(axis=1)
        mixed = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9) @ self.vectors
        size = self.noise * np.sqrt(1.5 * RATE / samples.shape[1])
        return mx.array((mixed + size * self.scatter(samples) @ self.basis).astype(np.float32))

    def scatter(self, samples):
        """Noise [B, M] of windows [B, samples], drawn anew each time."""
        return self.random.normal(size=(len(samples), len(self.basis)))


def voices(seed, count, dimension=DIMENSION):
    """Vectors [count, dimension] like x-vectors: a shared mean of norm 10, a radius of 2.4."""
    random = np.random.default_rng(seed)
    mean, own = random.normal(size=dimension), random.normal(size=(count, dimension))
    return 10 * mean / np.linalg.norm(mean) + 2.4 * own / np.linalg.norm(own, axis=1, keepdims=True)


def directions(seed, count, dimension=DIMENSION):
    """Orthonormal rows [count, dimension]."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, count)))[0].T


def triples(found):
    return [(turn.start, turn.end, turn.speaker) for turn in found.turns]


def error_rate(turns, found, seconds):
    """Diarization error rate of turns found against those that were."""

    def annotation(turns):
        made = Annotation()
        for i, (start, end, speaker) in enumerate(turns):
            made[Segment(start, end), i] = str(speaker)
        return made

    within = Timeline([Segment(0, seconds)])
    return DiarizationErrorRate(collar=0.0)(annotation(turns), annotation(triples(found)), uem=within)


def residuals(X, labels):
    """X [36, D] less each speaker's mean: what the six emotions do to a voice."""
    speakers = np.array(labels["speaker"])
    return X - np.stack([X[speakers == name].mean(axis=0) for name in speakers])


def manners(shared, seed, count, emotions):
    """(a vector a speaker and emotion, noise as of the others' emotions, a space fitted on the others) of some six."""
    X, _, labels = real.load(shared)
    X, speakers, moods = np.array(X), np.array(labels["speaker"]), np.array(labels["emotion"])
    random = np.random.default_rng(seed)
    chosen = random.permutation(sorted(set(speakers)))[:count]
    some = random.permutation(sorted(set(moods)))[:emotions]
    vectors = np.stack([X[(speakers == name) & (moods == mood)][0] for name in chosen for mood in some])
    others = ~np.isin(speakers, chosen)
    noise = residuals(X, labels)[others if others.any() else slice(None)]
    if others.sum() < 12:
        return vectors, noise, None
    space = VoiceSpace.fit(mx.array(X[others]), nuisance=moods[others].tolist(), groups=speakers[others].tolist())
    return vectors, noise, space


def log_mel_statistics(samples):
    """Mean and deviation over time [B, 256] of the log-mel spectrum, in the frames that sound."""
    mel = mx.stack([log_mel(window) for window in samples])
    level = mel.mean(axis=2, keepdims=True)
    sounding = (level > level.max(axis=1, keepdims=True) - 3).astype(mx.float32)
    count = sounding.sum(axis=1)
    mean = (mel * sounding).sum(axis=1) / count
    variance = (mx.square(mel - mean[:, None]) * sounding).sum(axis=1) / count
    return mx.concatenate([mean, mx.sqrt(variance + 1e-8)], axis=1)


def speech_in(samples):
    """[first, end] of the speech in a clean recording by librosa, pauses under 0.3 s bridged: the truth to find."""
    import librosa

    found = []
    for first, end in librosa.effects.split(samples, top_db=35, frame_length=480, hop_length=240).tolist():
        if end - first >= 0.1 * RATE:
            if found and first - found[-1][1] < 0.3 * RATE:
                found[-1][1] = end
            else:
                found.append([first, end])
    return found


def spliced(shared, names, seed):
    """(samples, turns): recordings cut into pieces of 2 to 3 s, each used once, in alternation, mostly with pauses."""
    random, queues = np.random.default_rng(seed), {}
    for name in names:
        samples = read_audio(shared / "audio" / f"{name}.wav", RATE)
        samples = samples[speech_in(samples)[0][0] :][: 9 * RATE] * (0.05 / np.sqrt(np.square(samples).mean()))
        cuts = np.arange(2.5, samples.size / RATE - 1.2, 2.5) + random.uniform(-0.5, 0.5)
        queues[name] = np.split(samples, (cuts * RATE).astype(int))
    parts, turns, at, last = [np.zeros(RATE // 2)], [], RATE // 2, None
    while any(queues.values()):
        last = max((name for name in queues if queues[name]), key=lambda name: (name != last, len(queues[name]), name))
        piece = queues[last].pop(0)
        speech = speech_in(piece)
        parts += [piece[speech[0][0] : speech[-1][1]], np.zeros(int(random.choice([0, 0.5, 0.8]) * RATE))]
        offset = at - speech[0][0]
        turns += [((offset + first) / RATE, (offset + end) / RATE, last) for first, end in speech]
        at += parts[-2].size + parts[-1].size
    samples = np.concatenate([*parts, np.zeros(RATE // 2)])
    return (samples + random.normal(0, 1e-4, samples.size)).astype(np.float32), turns


def trained(shared, names):
    """An embedder of log-mel statistics, weighted by what tells these recordings apart in windows drawn at random:
    linear discriminants (Fisher 1936) of as many dimensions as there are names."""
    random, rows, who = np.random.default_rng(5), [], []
    for i, name in enumerate(names):
        samples = read_audio(shared / "audio" / f"{name}.wav", RATE)
        for length in (36000, 18000):
            starts = random.integers(0, samples.size - length, 60)
            rows.append(log_mel_statistics(mx.array(np.stack([samples[at : at + length] for at in starts]))))
            who += [i] * 60
    X, who = np.array(mx.concatenate(rows)), np.array(who)
    means = np.stack([X[who == i].mean(axis=0) for i in range(len(names))])
    within = np.cov((X - means[who]).T)
    within += 0.05 * np.trace(within) / len(within) * np.eye(len(within))
    weights = mx.array(np.linalg.solve(within, (means - means.mean(axis=0)).T).astype(np.float32))
    centre = mx.array(X.mean(axis=0))
    return lambda samples: (log_mel_statistics(samples) - centre) @ weights + 10
