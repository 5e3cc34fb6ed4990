"""A linear map of the speaker vectors after which a voice is most like itself through the codec.

    python -m training.open likeness WORK --texts ROOT [--voices 320]

The speaker encoder learnt on recordings and on what another codec made of them. Within-class covariance normalisation
(Hatch, Kajarekar and Stolcke, 2006) makes up for the change without training it: with W the covariance of a voice's
vectors through the codec around its mean as spoken, the map is W**-1/2, W shrunk towards a multiple of the identity,
symmetric, and scaled so that the variances of the voices' means sum to their width. So it loses nothing, blends stay
blends, and what the codec blurs weighs less. `gather` applies it to the corpus's vectors and `export` to the speaker
encoder's last layer. Writes WORK/likeness.npz: map [width, width], centre [width], and what it was made of, as often as
40 voices are done. Gate: voices that it was not made with, found again by one sentence.
"""

import random
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint.codec import Codec

from ..espeak import RATE, Speaker
from ..evaluate import found_again
from .codec import folder as codec_folder
from .config import PACKAGE
from .phones import Talking, data_folder
from .resynthesis import given_back
from .texts import Decks

FIRST = 40_000_000  # of the texts' numbers and of the voices
TRIES = 20  # texts that a voice may need for two of length
SHORTEST = 2.0  # seconds
SHRUNK = 0.03  # of W's trace is added to every variance
AMONG = 40  # voices that one is looked for in
FOUND = 0.8  # of them by one sentence, with the map of the others
NAME = "likeness.npz"


def fitted(spoken, again):
    """(map [D, D], centre [D]) of vectors as spoken [voices, sentences, D] and through the codec [voices, D]."""
    spoken, again = np.asarray(spoken, np.float64), np.asarray(again, np.float64)
    means = spoken.mean(1)
    off = again - means
    within = off.T @ off / len(off)
    variances, axes = np.linalg.eigh(within)
    gains = (variances + SHRUNK * variances.sum()) ** -0.5
    found = (axes * gains) @ axes.T
    between = np.cov(means.T)
    found *= (len(found) / np.trace(found @ between @ found)) ** 0.5
    return found.astype(np.float32), means.mean(0).astype(np.float32)


def applied(vectors, path):
    """Vectors [..., D] by the map in a file; as they are where there is none."""
    if not Path(path).is_file():
        return vectors
    with np.load(path) as found:
        return (vectors - found["centre"]) @ found["map"]


def share_found(spoken, again):
    """How often a voice of AMONG is found by one sentence through the codec among the others' second as spoken."""
    parts = [slice(start, start + AMONG) for start in range(0, len(again) - AMONG + 1, AMONG)]
    return float(np.mean([found_again(mx.array(again[own]), mx.array(spoken[own, 1])) for own in parts]))


def heard(number, model, codec, decks, talking):
    """Vectors of two sentences of a new voice as spoken [2, D], and of the first through the codec [D]."""
    speaker = Speaker.draw(random.Random(FIRST + number))
    talking.use(speaker)
    spoken, again = [], None
    for text in range(FIRST + number * TRIES, FIRST + (number + 1) * TRIES):
        said = talking.say(decks.text(text, held=False))
        if said is None or len(said.sound) < SHORTEST * RATE or not said.spoken():
            continue
        spoken.append(np.array(model.embed((said.sound, RATE)), np.float32))
        if again is None:
            again = np.array(model.embed((given_back(codec, said.sound, speaker), RATE)), np.float32)
        if len(spoken) == 2:
            return np.stack(spoken), again
    raise ValueError(f"voice {number} says less than two texts of {SHORTEST} s")


def add_options(options):
    options.add_argument("--texts", default="/", help="root below which the texts' packages lie")
    options.add_argument("--voices", type=int, default=320, help="new ones, a multiple of 80 (default: 320)")


def main(options):
    work, started = Path(options.work), time.monotonic()
    path = work / NAME
    spoken, again = [], []
    if path.is_file():
        with np.load(path) as known:
            spoken, again = list(known["spoken"]), list(known["again"])
    decks, talking = Decks.kept(work, options.texts), Talking(data_folder(work))
    model, codec = Qwen3TTS.from_pretrained(PACKAGE, dtype="float32"), Codec(codec_folder(work))
    for number in range(len(again), options.voices):
        if options.seconds is not None and time.monotonic() - started > options.seconds:
            break
        own, other = heard(number, model, codec, decks, talking)
        spoken.append(own)
        again.append(other)
        if (number + 1) % AMONG == 0:
            write(path, np.array(spoken), np.array(again))
    spoken, again = np.array(spoken), np.array(again)
    half = len(again) // (2 * AMONG) * AMONG
    if not half:
        sys.exit(f"likeness: {len(again)} voices; {2 * AMONG} are needed")
    plain, mapped = share_found(spoken, again), []
    for own, others in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        matrix, centre = fitted(spoken[others], again[others])
        mapped.append(share_found((spoken[own] - centre) @ matrix, (again[own] - centre) @ matrix))
    found = float(np.mean(mapped))
    print(f"likeness: {len(again)} voices; by one sentence {plain:.3f} of {AMONG} found again, {found:.3f} by the map")
    if found < FOUND:
        sys.exit(f"likeness: {found:.3f} < {FOUND}; train the speaker encoder on the codec")


def write(path, spoken, again):
    matrix, centre = fitted(spoken, again)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, map=matrix, centre=centre, spoken=spoken, again=again)
    partial.replace(path)
