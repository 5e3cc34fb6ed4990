"""The keyed mark: how often it is found after ordinary handling, its false alarms, how loud it is, what it costs.

    python -m benchmarks.watermark --audio DIR [--quick] [--kinds KIND …] [--seconds 3] [--only NAME …] [--write FILE]
    python -m benchmarks.watermark --recorded FILE …

Clips of 6 s: the miniature's speech, pieces of the recordings (WAV) in DIR, noise, and music-like tones. Each is marked
with a key of its own, cut to 3 s at a random place, handled, and looked at. What is beyond the ordinary is done to one
clip in five, and the codec to 6 s of one in ten. False alarms: wrong keys on a marked and an unmarked piece of 3 s of
each clip. `--write` keeps the figures of some kinds, `--recorded` joins such files.
"""

import argparse
import io
import json
import time
import warnings
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy import signal

from mlx_qwen3tts import Codec, Qwen3TTS, cli
from mlx_qwen3tts.audio import watermark
from mlx_qwen3tts.audio.reading import read_audio
from mlx_qwen3tts.audio.stretch import stretched
from mlx_qwen3tts.checkpoint import hub

from .hours import book

RATE, SECONDS, CROP, PIECE = 24000, 6, 3, 1920
LENGTH = SECONDS * RATE
LEVEL = 0.08  # root mean square of a clip
VOICES = hub.SHIPPED["miniature"] / "voices"
COUNTS = {"miniature": 70, "recordings": 60, "noise": 35, "tones": 35}
SPOKEN = 30  # sentences of the miniature, three by each voice
WRONG = 60  # keys that are tried on each piece, and the default one
LIMITS = (1.0, 0.1, 0.01, 1e-3, 1e-4)


# Clips


def levelled(sound):
    """A sound [n] at LEVEL, its peaks within ±0.95."""
    sound = sound * (LEVEL / np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    return np.clip(sound, -0.95, 0.95).astype(np.float32)


def miniature_clips(count, draw):
    """Pieces at random places of sentences of the miniature's ten voices, with the pauses that it makes."""
    tts = Qwen3TTS.from_pretrained("miniature", dtype="float32")
    lines = [line for line in book(10).split("\n\n") if not line.startswith("#")]
    sentences = [f"{part.strip()}." for line in lines for part in line.split(": ")[-1].split(".") if len(part) > 12]
    voices = [path for path in sorted(VOICES.glob("*.safetensors")) for _ in range(SPOKEN // 10)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"languages": "English", "seeds": 1, "batch_size": 30, "max_tokens": 60}
        made = tts.generate_batch(sentences[:SPOKEN], voices, **options)
    whole = np.concatenate([np.array(speech.audio) for speech in made])
    for start in draw.integers(whole.size - LENGTH, size=count):
        yield whole[start:][:LENGTH]


def recording_clips(count, draw, folder):
    """Pieces of real recordings at random places; there are fewer seconds than clips, so that they overlap."""
    whole = [sound for path in sorted(Path(folder).glob("*.wav")) if (sound := read_audio(path, RATE)).size > LENGTH]
    if not whole:
        raise SystemExit(f"error: {folder} has no WAV of more than {SECONDS} s")
    share = np.array([sound.size - LENGTH for sound in whole], float)
    for number in draw.choice(len(whole), count, p=share / share.sum()):
        start = draw.integers(whole[number].size - LENGTH)
        yield whole[number][start:][:LENGTH]


def noise_clips(count, draw):
    """Gaussian noise whose power falls with a random power of the frequency, steady or rising and falling."""
    frequencies = np.fft.rfftfreq(LENGTH, 1 / RATE).clip(20)
    for number in range(count):
        sound = np.fft.irfft(np.fft.rfft(draw.standard_normal(LENGTH)) * frequencies ** -draw.uniform(0, 1))
        if number % 2:
            turns = draw.uniform(0.1, 1, 5 * SECONDS)
            sound *= np.interp(np.arange(LENGTH), np.linspace(0, LENGTH, turns.size), turns)
        yield sound


def tone_clips(count, draw):
    """Chords of three notes with eight harmonics that are struck and fade, with and without a drum of noise."""
    since = np.arange(RATE) / RATE
    for number in range(count):
        sound, every = 1e-4 * draw.standard_normal((SECONDS + 1) * RATE), draw.choice([0.25, 0.5, 1.0])
        fading, falling = draw.uniform(0.5, 6), draw.uniform(0.8, 1.6)
        shape = np.minimum(since / 0.01, 1) * np.exp(-since * fading) * np.minimum((1 - since) / 0.01, 1)
        for start in np.arange(0, SECONDS, every):
            chord = 0
            for note in draw.choice([0, 3, 5, 7, 10, 12, 15, 17], 3, replace=False):
                phase = 2 * np.pi * 110 * 2 ** (note / 12) * since
                chord = chord + sum(np.sin(k * phase) / k**falling for k in range(1, 9))
            if number % 2:
                chord = chord + 4 * np.exp(-since * 30) * draw.standard_normal(RATE)
            sound[int(start * RATE) :][:RATE] += shape * chord
        yield sound[: SECONDS * RATE]


# Handling


def through_av(sound, container, codec, rate, bits):
    """A sound through an encoder of PyAV at so many bits a second, back at RATE and in its place."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate, {"b": str(bits)}, layout="mono")
        form = stream.format.name if stream.format else "fltp"
        samples = soxr.resample(sound, RATE, rate).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], "flt" if form == "flt" else "fltp", "mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as source:
        made = source.streams.audio[0].rate
        parts = [frame.to_ndarray().reshape(-1) for frame in source.decode(audio=0)]
    return soxr.resample(np.concatenate(parts).astype(np.float32), made, RATE)


def through_rate(sound, rate):
    return soxr.resample(soxr.resample(sound, RATE, rate), rate, RATE)


def mu_law(sound):
    """8 bits at 8 kHz, as telephones have it (G.711), by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, soxr.resample(sound, RATE, 8000), 8000, format="WAV", subtype="ULAW")
    file.seek(0)
    return soxr.resample(soundfile.read(file, dtype="float32")[0], 8000, RATE)


def noisy(sound, draw, ratio):
    power = np.mean(np.square(sound, dtype=np.float64)) / 10 ** (ratio / 10)
    return sound + np.sqrt(power) * draw.standard_normal(sound.size)


def faster(sound, speed):
    """Pitch and time together, as a tape does it."""
    return soxr.resample(sound, RATE * speed, RATE)


def room(sound, draw):
    """A made-up room whose sound falls by 60 dB in 0.3 s."""
    tail = np.arange(int(0.3 * RATE))
    response = draw.standard_normal(tail.size) * 10 ** (-3 * tail / tail.size) * 0.03
    response[0] = 1
    return signal.fftconvolve(sound, response)[: sound.size]


def through_codec(codec, sound):
    return np.array(codec.decode(codec.encode(sound.astype(np.float32))))


# {name: function of a sound [n] at RATE and a random generator}
ORDINARY = {
    "nothing else": lambda sound, draw: sound,
    "MP3 128 kb/s": lambda sound, draw: through_av(sound, "mp3", "libmp3lame", RATE, 128000),
    "MP3 64 kb/s": lambda sound, draw: through_av(sound, "mp3", "libmp3lame", RATE, 64000),
    "MP3 32 kb/s": lambda sound, draw: through_av(sound, "mp3", "libmp3lame", RATE, 32000),
    "Opus 32 kb/s": lambda sound, draw: through_av(sound, "ogg", "libopus", 48000, 32000),
    "Opus 24 kb/s": lambda sound, draw: through_av(sound, "ogg", "libopus", 48000, 24000),
    "44.1 kHz and back": lambda sound, draw: through_rate(sound, 44100),
    "16 kHz and back": lambda sound, draw: through_rate(sound, 16000),
    "8 kHz and back": lambda sound, draw: through_rate(sound, 8000),
    "µ-law at 8 kHz": lambda sound, draw: mu_law(sound),
    "level -20 dB, 16 bits": lambda sound, draw: np.round(sound * 3276.8) / 32768,
    "white noise at 20 dB": lambda sound, draw: noisy(sound, draw, 20),
    "speed +2 %": lambda sound, draw: faster(sound, 1.02),
    "speed -2 %": lambda sound, draw: faster(sound, 0.98),
}
BEYOND = {
    "AAC 64 kb/s": lambda sound, draw: through_av(sound, "adts", "aac", RATE, 64000),
    "level +12 dB, clipped": lambda sound, draw: np.clip(sound * 4, -1, 1),
    "speed within ±2 %": lambda sound, draw: faster(sound, draw.uniform(0.98, 1.02)),
    "tempo +2 %, same pitch": lambda sound, draw: stretched(sound.astype(np.float32), RATE, 1.02),
    "white noise at 10 dB": lambda sound, draw: noisy(sound, draw, 10),
    "a room": room,
}
CODEC = "6 s through the miniature's codec"


# How audible


def noise_to_mask(sound, marked):
    """(dB of what was added over what the sound masks, share of cells where it is above, dB of the 99th percentile).

    A model of hearing, no listening: Johnston, "Transform coding of audio signals using perceptual noise criteria"
    (1988). Levels in Bark bands are spread to their neighbours and lowered by 5.5 dB where a window of 43 ms is noise
    and by 14.5 dB and the number of the band where it is a tone; 0 dBFS is taken for 90 dB, and nothing below the
    threshold in quiet is heard.
    """
    size = 1024
    window = np.hanning(size)
    own, added = (
        np.square(np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(part, size)[:: size // 2] * window)))
        / (window.sum() / 2) ** 2
        for part in (sound.astype(np.float64), marked.astype(np.float64) - sound)
    )
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    bark = 13 * np.arctan(0.00076 * frequency) + 3.5 * np.arctan((frequency / 7500) ** 2)
    bands = np.arange(int(bark[-1]) + 1)
    member = (bark.astype(int)[:, None] == bands).astype(float)
    away = bands[None] - bands[:, None] + 0.474
    spread = 10 ** ((15.81 + 7.5 * away - 17.5 * np.sqrt(1 + away**2)) / 10)
    masker = own @ member @ (spread / spread.sum(0))
    flat = 10 * np.mean(np.log10(own[:, 1:] + 1e-14), axis=1) - 10 * np.log10(np.mean(own[:, 1:], axis=1) + 1e-14)
    tonal = np.clip(flat / -60, 0, 1)[:, None]
    mask = masker / 10 ** ((tonal * (14.5 + bands) + (1 - tonal) * 5.5) / 10)
    centre = np.array([frequency[bark.astype(int) == band].mean() for band in bands]).clip(50) / 1000
    quiet = 3.64 * centre**-0.8 - 6.5 * np.exp(-0.6 * (centre - 3.3) ** 2) + 1e-3 * centre**4
    ratio = (added @ member) / np.maximum(mask, 10 ** ((quiet - 90) / 10))
    heard = (own.sum(1) > 1e-6 * own.sum(1).max())[:, None] & (added @ member > 0)
    cells = ratio[heard]
    return 10 * np.log10(cells.mean()), float((cells > 1).mean()), 10 * np.log10(np.percentile(cells, 99))


def added_level(sound, marked):
    """dB of a sound over what was added to it."""
    difference = np.sum(np.square(marked - sound, dtype=np.float64))
    return 10 * np.log10(np.sum(np.square(sound, dtype=np.float64)) / difference)


# The measurement


def figures(kind, number, sound, codec, seconds=CROP, only=()):
    """All of one clip as a dictionary for JSON. only: kinds of handling, and no false alarms."""
    key, draw = f"{kind} {number}", np.random.default_rng(number)
    marked = watermark.mark(sound, key, RATE)
    decibels, above, worst = noise_to_mask(sound, marked)
    start = draw.integers(max(1, LENGTH - seconds * RATE))
    piece, unmarked = marked[start:][: seconds * RATE], sound[start:][: seconds * RATE]
    made = {name: handle(piece, draw) for name, handle in ORDINARY.items() if not only or name in only}
    if number % 5 == 0 and not only:
        made |= {name: handle(piece, draw) for name, handle in BEYOND.items()}
    if number % 10 == 0 and not only:
        made[CODEC] = through_codec(codec, marked)
    found = {}
    for name, samples in made.items():
        one = watermark.detect(np.clip(samples, -1, 1).astype(np.float32), RATE, [key])[0]
        found[name] = one.score, one.p_false
    keys = [f"wrong {count}" for count in range(WRONG)] + [watermark.DEFAULT_KEY]
    wrong = [one for which in (piece, unmarked) if not only for one in watermark.detect(which, RATE, keys)]
    return {
        "kind": kind,
        "found": found,
        "snr": float(added_level(sound, marked)),
        "to_mask": float(decibels),
        "above_mask": above,
        "worst_to_mask": float(worst),
        "wrong": [sum(one.p_false <= limit for one in wrong) for limit in LIMITS],
        "wrong_tried": len(wrong),
        "wrong_score": max((one.score for one in wrong), default=0.0),
        "wrong_least": min((one.p_false for one in wrong), default=1.0),
    }


def cost(sound, repeats=5):
    """(share of real time that a Marker takes in pieces of 80 ms, that `detect` takes, the most ms it holds back)."""
    best, found, most = np.inf, np.inf, 0
    for _ in range(repeats):
        marker, given, start = watermark.Marker("cost", RATE), 0, time.process_time()
        for place in range(0, sound.size, PIECE):
            given += marker(sound[place : place + PIECE]).size
            most = max(most, min(place + PIECE, sound.size) - given)
        best = min(best, time.process_time() - start)
        start = time.process_time()
        watermark.detect(sound, RATE, [watermark.DEFAULT_KEY])
        found = min(found, time.process_time() - start)
    return best * RATE / sound.size, found * RATE / sound.size, 1000 * most / RATE


def table(rows):
    """The lines of the tables."""
    kinds = [kind for kind in COUNTS if any(row["kind"] == kind for row in rows)]
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    lines = [f"| | all ({len(rows)}) | " + " | ".join(f"{kind} ({len(of[kind])})" for kind in kinds) + " |"]
    lines += ["|---" * (len(kinds) + 2) + "|"]

    def cell(some, name):
        scores = [row["found"][name] for row in some if name in row["found"]]
        present = sum(p_false <= watermark.THRESHOLD for _, p_false in scores)
        return f"{present} of {len(scores)}, {min(score for score, _ in scores):.1f}" if scores else "–"

    for name in (name for name in (*ORDINARY, *BEYOND, CODEC) if any(name in row["found"] for row in rows)):
        lines.append(f"| {name} | " + " | ".join(cell(some, name) for some in (rows, *of.values())) + " |")
    lines += ["", "| | SNR | to the mask, mean | 99th percentile | cells above it |", "|---|---|---|---|---|"]
    for kind, some in of.items():
        mean = {
            name: np.mean([row[name] for row in some]) for name in ("snr", "to_mask", "worst_to_mask", "above_mask")
        }
        numbers = (f"{mean[name]:.1f} dB" for name in ("snr", "to_mask", "worst_to_mask"))
        lines.append(f"| {kind} | {' | '.join(numbers)} | {mean['above_mask']:.1%} |")
    tried = sum(row["wrong_tried"] for row in rows)
    lines += ["", f"| `p_false` at most | allowed of {tried} | counted |", "|---|---|---|"]
    counted = np.sum([row["wrong"] for row in rows], axis=0)
    lines += [f"| {limit:g} | {tried * limit:.1f} | {count} |" for limit, count in zip(LIMITS, counted, strict=True)]
    worst = max(row["wrong_score"] for row in rows), min(row["wrong_least"] for row in rows)
    return [*lines, "", f"highest score of a wrong key {worst[0]:.2f}, lowest p_false {worst[1]:.2g}"]


def main(arguments=None):
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--audio", metavar="DIR", help="recordings; without them their clips are left out")
    options.add_argument("--kinds", nargs="+", choices=list(COUNTS), default=list(COUNTS))
    options.add_argument("--quick", action="store_true", help="a tenth of the clips")
    options.add_argument("--seconds", type=int, choices=range(2, SECONDS + 1), default=CROP, help="of a clip")
    options.add_argument("--only", nargs="+", choices=list(ORDINARY), default=(), metavar="NAME")
    options.add_argument("--write", metavar="FILE")
    options.add_argument("--recorded", metavar="FILE", nargs="+")
    options.add_argument("--json", action="store_true")
    options = options.parse_args(arguments)
    if options.recorded:
        rows = [row for path in options.recorded for row in json.loads(Path(path).read_text(encoding="utf-8"))]
    else:
        makers = {"miniature": miniature_clips, "noise": noise_clips, "tones": tone_clips}
        if options.audio:
            makers["recordings"] = lambda count, draw: recording_clips(count, draw, options.audio)
        codec, rows = Codec.from_pretrained("miniature"), []
        for kind in (kind for kind in options.kinds if kind in makers):
            count = COUNTS[kind] // 10 if options.quick else COUNTS[kind]
            for number, sound in enumerate(makers[kind](count, np.random.default_rng(0))):
                sound = levelled(np.asarray(sound))
                rows.append(figures(kind, number, sound, codec, options.seconds, options.only))
                if options.write:
                    Path(options.write).write_text(json.dumps(rows), encoding="utf-8")
    print("\n".join(table(rows)))
    share, found, held = cost(np.tile(levelled(next(noise_clips(1, np.random.default_rng(0)))), 5))
    print(f"A Marker takes {share:.2%} of real time in pieces of 80 ms, detect {found:.2%} with one key.")
    print(f"After pieces of 80 ms at most {held:.1f} ms are held back.")
    if options.json:
        cli.print_json(rows)


if __name__ == "__main__":
    main()
