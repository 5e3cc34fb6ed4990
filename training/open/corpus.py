"""The corpus of the open miniature: what 1,000 voices and 320 between two of them say, as codes, shard by shard.

    python -m training.open corpus WORK --texts ROOT [--seconds 500]

What a shard says and who says it follow from its number alone, so a corpus is as long as it has been made, and goes on
where it stopped. Its lengths do not quite: they differ with what espeak-ng said before in the same process. A shard
holds 40 voices with a few utterances each, 33 shards hold all voices once, and the rounds that follow let them say
other things: half a corpus has all voices too. Shard `valid` and shard `test` are 40 unheard voices each, that say
unheard sentences. What a shard keeps: the codes, packed; the two phones of every frame and the character of the text
that is said in it, both as espeak-ng tells them; and vectors of some utterances by the speaker encoder. Sound is not
kept. WORK/corpus/index.json lists the shards with the SHA-256 sum of each. Several processes may make one corpus, each
its --share of the shards.
"""

import fcntl
import hashlib
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ..corpus import draw
from ..lock import locked
from .codec import folder as codec_folder
from .codec import name as codec_name
from .config import PACKAGE
from .packing import bits_for, pack, unpack
from .phones import FRAME, Talking, data_folder
from .texts import Decks

VOICES = 40  # of a shard
SAYS, TESTED = 8, 5  # utterances of each in a shard; in the shard `test`
VECTORS = 2  # of them with a speaker vector
ROUNDS = 6
TRAINED = 1320
SEED = 1
SPLITS = ("valid", "test")
CODES = 256
SPEAKER, PREFIX = "speaker.safetensors", "speaker_encoder."  # in WORK/codec; before the names of its tensors


def names(rounds=ROUNDS):
    """The shards in the order in which they are made."""
    return [*SPLITS, *(f"{number:04}" for number in range(rounds * TRAINED // VOICES))]


def plan(name, speakers):
    """[(speaker, its number in the corpus, the texts' numbers)] of a shard, and whether they are unheard."""
    if name in SPLITS:
        own = [n for n, speaker in enumerate(speakers) if speaker["split"] == name]
        count, first = (TESTED, 1_000_000) if name == "test" else (SAYS, 0)
        return [(n, [first + k * VOICES + place for k in range(count)]) for place, n in enumerate(own)], True
    turn, place = divmod(int(name), TRAINED // VOICES)
    order = list(range(TRAINED))
    random.Random(SEED + turn).shuffle(order)
    own = order[place * VOICES : (place + 1) * VOICES]
    first = int(name) * VOICES * SAYS
    return [(n, [first + k * SAYS + i for i in range(SAYS)]) for k, n in enumerate(own)], False


class Encoders:
    """The codec's encoder and the speaker encoder: those in WORK/codec, where they were trained, or the shipped ones.

    In the official classes, which on a CPU take a quarter of the time of the package's; their codes are equal.
    """

    def __init__(self, work):
        import torch
        from safetensors.torch import load_file, save_file

        from ..codec import fill, load
        from ..mels import mel
        from ..official import Qwen3TTSSpeakerEncoder, Qwen3TTSSpeakerEncoderConfig

        torch.set_num_threads(1)
        self.torch, self.mel = torch, mel
        self.codec = load(codec_folder(work)).eval()
        about = json.loads((PACKAGE / "config.json").read_text())["speaker_encoder_config"]
        self.speaker = Qwen3TTSSpeakerEncoder(Qwen3TTSSpeakerEncoderConfig(**about)).eval()
        trained = Path(work) / "codec" / "speaker_encoder.pt"
        if trained.is_file():
            own = torch.load(trained, weights_only=False)["tensors"]
            # for `export`, which has no torch
            save_file({f"{PREFIX}{k}": v for k, v in own.items()}, Path(work) / "codec" / SPEAKER)
            fill(self.speaker, own, in_mlx=False)
        else:
            shipped = load_file(PACKAGE / "model.safetensors").items()
            own = {k.removeprefix(PREFIX): v for k, v in shipped if k.startswith(PREFIX)}
            fill(self.speaker, own, in_mlx=True)

    def codes(self, sound):
        """[frames, codebooks] of samples with locked pitch."""
        with self.torch.inference_mode():
            heard = self.torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None]
            return self.codec.encode(heard, self.torch.ones_like(heard, dtype=int)).audio_codes[0].numpy().copy()

    def vector(self, sound):
        with self.torch.inference_mode():
            return self.speaker(self.mel(sound)[None])[0].numpy()


def record(said, speaker, encoders):
    """Codes [frames, codebooks], phones [frames, 2] and places [frames] of an utterance."""
    sound, periods = locked(said.sound, 0.9 * speaker.f0, 1.4 * speaker.f0)
    codes = encoders.codes(sound)
    codes[:, 0] = periods  # which is known
    _, places = said.at((np.arange(said.frames) + 0.5) * FRAME)
    return codes, said.halves(), places.astype(np.uint8)


def make(name, decks, talking, encoders, speakers):
    """One shard: {array name: array}. Its texts are a JSON list."""
    rows, held = plan(name, speakers)
    texts, lengths, who, codes, phones, places, vectors = [], [], [], [], [], [], []
    for number, wanted in rows:
        speaker = speakers[number]["speaker"]
        talking.use(speaker)
        kept = 0
        for text in (decks.text(n, held) for n in wanted):
            said = talking.say(text)
            if said is None or not said.spoken():
                continue
            found = record(said, speaker, encoders)
            for row, part in zip((codes, phones, places), found, strict=True):
                row.append(part)
            texts.append(text)
            lengths.append(said.frames)
            who.append(number)
            with_vector = kept < VECTORS or held
            vectors.append(encoders.vector(said.sound) if with_vector else None)
            kept += 1
    codes = np.concatenate(codes)
    return {
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
        "lengths": np.array(lengths, np.uint8),
        "speakers": np.array(who, np.uint16),
        "codes": pack(codes, bits_for(CODES)),
        "codebooks": np.array(codes.shape[1], np.uint8),
        "phones": np.concatenate(phones),
        "places": np.concatenate(places),
        "vectors": np.array([v for v in vectors if v is not None], np.float16),
        "with_vector": np.array([v is not None for v in vectors]),
    }


def add_options(options):
    options.add_argument("--texts", default="/", help="root below which the texts' packages lie")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="times that every voice is heard")
    options.add_argument("--share", type=share, default=(0, 1), metavar="K/N", help="the K-th of N processes, from 1")


def share(text):
    """(k, n) of "K/N", k from 0."""
    part, whole = map(int, text.split("/"))
    if not 1 <= part <= whole:
        raise ValueError(text)
    return part - 1, whole


def listed(folder, name, about):
    """index.json with one more shard; what other processes have written in the meantime stays."""
    with (folder / "index.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        index = folder / "index.json"
        known = json.loads(index.read_text()) if index.is_file() else {}
        known[name] = about
        partial = folder / "index.partial"
        partial.write_text(json.dumps({n: known[n] for n in ordered(known)}, indent=1) + "\n")
        partial.replace(index)
    return known


def ordered(known):
    """The names of shards in the order in which one process makes them."""
    return [*(name for name in SPLITS if name in known), *sorted(set(known) - {*SPLITS})]


def check(known, codec, folder):
    """End where shards were made by another codec than that of this hash: their codes mean something else."""
    if other := [name for name, about in known.items() if about.get("codec") != codec]:
        sys.exit(f"corpus: {len(other)} shards, {other[0]} the first, are of another codec; move {folder} away")


def main(options):
    folder = Path(options.work) / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    known = json.loads(index.read_text()) if index.is_file() else {}
    codec = codec_name(options.work)
    check(known, codec, folder)
    own, processes = options.share
    missing = [name for name in names(options.rounds)[own::processes] if name not in known]
    if not missing:
        return print(
            f"corpus: {len(known)} shards, {sum(s['frames'] for s in known.values()) * FRAME / 3600:.1f} hours"
        )
    decks, speakers, encoders = Decks.kept(options.work, options.texts), draw(SEED), Encoders(options.work)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as data:
        talking = Talking(data_folder(data))
        for name in missing:
            if options.seconds is not None and time.monotonic() - started > options.seconds:
                return print(f"corpus: {len(known)} of {len(names(options.rounds))} shards, to be gone on with")
            before = time.process_time()
            arrays = make(name, decks, talking, encoders, speakers)
            written = io.BytesIO()
            np.savez_compressed(written, **arrays)
            partial = folder / f"{name}.partial"
            partial.write_bytes(written.getvalue())
            partial.replace(folder / f"{name}.npz")
            about = {
                "sha256": hashlib.sha256(written.getvalue()).hexdigest(),
                "bytes": len(written.getvalue()),
                "codec": codec,
                "utterances": len(arrays["lengths"]),
                "frames": int(arrays["lengths"].sum(dtype=int)),
                "seconds": round(time.process_time() - before, 1),
            }
            known = listed(folder, name, about)
            print(
                f"corpus: shard {name}, {about['frames'] * FRAME / 60:.0f} minutes, "
                f"{about['seconds']:.0f} s of CPU, {about['bytes'] / 1e6:.2f} MB",
                flush=True,
            )
    print(f"corpus: {sum(s['frames'] for s in known.values()) * FRAME / 3600:.1f} hours")


class Shard:
    """What a shard holds, utterance by utterance."""

    def __init__(self, path):
        with np.load(path) as found:
            arrays = dict(found)
        self.texts = json.loads(arrays["texts"].tobytes())
        self.lengths, self.speakers = arrays["lengths"].astype(int), arrays["speakers"].astype(int)
        frames, books = int(self.lengths.sum()), int(arrays["codebooks"])
        self.codes = unpack(arrays["codes"], bits_for(CODES), frames * books).reshape(frames, books)
        self.phones, self.places = arrays["phones"], arrays["places"].astype(int)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.vectors = {}  # of utterances that have one
        for utterance, vector in zip(np.flatnonzero(arrays["with_vector"]), arrays["vectors"], strict=True):
            self.vectors[int(utterance)] = vector.astype(np.float32)


def shards(work, verify=False):
    """{name: path} of the shards that are there, in order; verify: ValueError where one's hash is not that listed."""
    folder = Path(work) / "corpus"
    known = json.loads((folder / "index.json").read_text())
    for name, about in known.items():
        data = (folder / f"{name}.npz").read_bytes() if verify else b""
        if verify and hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise ValueError(f"{folder / name}.npz is not what index.json says")
    return {name: folder / f"{name}.npz" for name in ordered(known)}
