"""Whether the codec knows all phones of English, and the speaker encoder the codec.

    python -m training.open resynthesis WORK [--count 120]

Unheard voices say unheard sentences, the codec gives them back, and the judge hears both. Writes WORK/resynthesis.json:
phone errors as spoken and as given back, with natural pitch and with the locked one that the talker learns; the phones
that are heard worst; errors along the utterance, as the codec was trained on 64 frames at most; how well a linear
layer reads pitch and vocal tract off the vectors; and how many voices are found again by the vector of what the codec
gives back, before `likeness` has made up for it. Gates: the errors and the vectors. Where the latter is missed, the
closed recipe's `mels`, `echoes` and `speaker` in WORK/codec teach the speaker encoder the new codec.
"""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts import Qwen3TTS
from mlx_qwen3tts.checkpoint.codec import Codec

from ..espeak import RATE, SAMPLES_PER_FRAME, Speaker
from ..evaluate import found_again
from ..lock import locked
from .alignment import aligned
from .codec import folder as codec_folder
from .config import PACKAGE
from .inventory import PAUSE
from .listener import Listener
from .phones import Talking, data_folder
from .texts import Decks

# Phone errors of the codec above those as spoken; pitch and formants by the vectors.
WORST, EXPLAINED = 0.10, 0.9
FIRST = 20_000_000  # of the texts' numbers
NATURAL = 4  # of so many utterances one is given back with its natural pitch too
ENOUGH = 3  # seconds of a recording whose vector is asked
LATE = 64  # frames that the codec has seen in training


def add_options(options):
    options.add_argument("--texts", default="/", help="root below which the texts' packages lie")
    options.add_argument("--count", type=int, default=120, help="utterances, each of a voice of its own")


def main(options):
    work = Path(options.work)
    decks, talking = Decks.kept(work, options.texts), Talking(data_folder(work))
    model, codec = Qwen3TTS.from_pretrained(PACKAGE, dtype="float32"), Codec(codec_folder(work))
    listen = Listener(work / "judge.safetensors")
    errors, total, seen = Counter(), Counter(), Counter()
    wrong, swapped, late, vectors, again, features = Counter(), Counter(), Counter(), [], [], []
    started, count = time.monotonic(), 0
    for number in range(options.count):
        if options.seconds is not None and time.monotonic() - started > options.seconds:
            break
        speaker = Speaker.draw(random.Random(FIRST + number))
        talking.use(speaker)
        said = talking.say(decks.text(FIRST + number, held=True))
        if said is None or not said.spoken():
            continue
        meant, count = said.spoken(), count + 1
        sounds = {"spoken": said.sound, "locked": given_back(codec, said.sound, speaker)}
        if number % NATURAL == 0:
            sounds["natural"] = np.array(codec.decode(codec.encode(mx.array(said.sound))))
        starts = [s for s, phone in zip(said.starts, said.phones, strict=True) if phone != PAUSE]
        for name, sound in sounds.items():
            heard = listen(sound)
            pairs = [(i, None if j is None else heard[j]) for i, j in aligned(meant, heard)]
            total[name] += len(meant)
            errors[name] += sum(i is None or meant[i] != phone for i, phone in pairs)
            if name == "locked":
                for i, other in pairs:
                    one = PAUSE if i is None else meant[i]
                    if i is not None:
                        place = "late" if starts[i] * RATE / SAMPLES_PER_FRAME >= LATE else "early"
                        late[place, one != other] += 1
                    seen[one] += 1
                    wrong[one] += one != other
                    swapped[one, other] += one != other
        if len(said.sound) >= ENOUGH * RATE:
            for into, sound in ((vectors, said.sound), (again, sounds["locked"])):
                into.append(np.array(model.embed((sound, RATE)), np.float32))
            features.append(speaker.features())
    rates = {name: count / total[name] for name, count in errors.items()}
    worst = sorted(((wrong[p] / n, n, p) for p, n in seen.items() if n >= 10), reverse=True)[:15]
    along = {place: late[place, True] / max(1, late[place, True] + late[place, False]) for place in ("early", "late")}
    explained = read_off(np.array(vectors), np.array(features))
    found = int(found_again(mx.array(np.array(again)), mx.array(np.array(vectors))).sum())
    result = {
        "utterances": count,
        "phones": total["spoken"],
        "errors": rates,
        "along": along,
        "worst": [(p, round(r, 3), n) for r, n, p in worst],
        "swapped": [(*pair, n) for pair, n in swapped.most_common(25)],
        "explained": explained,
        "found_again": [found, len(vectors)],
    }
    (work / "resynthesis.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result, ensure_ascii=False))
    if rates["locked"] - rates["spoken"] > WORST:
        sys.exit(
            f"resynthesis: the codec adds {rates['locked'] - rates['spoken']:.3f} phone errors; train it on these texts"
        )
    if min(explained["pitch"], explained["formants"]) < EXPLAINED:
        sys.exit(
            f"resynthesis: the vectors tell pitch and formants to {explained}; train the speaker encoder on these texts"
        )


def given_back(codec, sound, speaker):
    """What the codec makes of a voice's samples: of codes as the corpus has them, with the pitch locked and known."""
    fixed, periods = locked(sound, 0.9 * speaker.f0, 1.4 * speaker.f0)
    codes = codec.encode(mx.array(fixed))
    codes = mx.concatenate([mx.array(periods.astype(np.int32))[:, None], codes[:, 1:]], 1)
    return np.array(codec.decode(codes))


def read_off(vectors, features, parts=5):
    """{attribute: explained variance} by a linear layer with a ridge, a part of the voices left out in turn."""
    guess, order = np.zeros_like(features), np.arange(len(vectors)) % parts
    for part in range(parts):
        known = order != part
        mean = vectors[known].mean(0)
        X, y = vectors[known] - mean, features[known]
        gram = X.T @ X
        weight = np.linalg.solve(gram + 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram)), X.T @ (y - y.mean(0)))
        guess[~known] = (vectors[~known] - mean) @ weight + y.mean(0)
    explained = 1 - ((guess - features) ** 2).mean(0) / features.var(0)
    return dict(zip(("pitch", "formants", "tilt", "pace"), explained.round(3).tolist(), strict=True))
