"""The one folder that the talker learns from: tokens, codes, phones and speaker vectors of all shards.

    python -m training.open gather WORK

learns the tokens from the texts that are taught, and writes WORK/data: data.npz, speakers.json, config.json and the
tokenizer's files. With `pack` this folder and the few modules that `talker` needs make one archive for a machine that
has torch and nothing else of ours.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from ..corpus import draw
from . import likeness, tokens
from .config import model_config
from .corpus import CODES, SEED, SPLITS, Shard, shards
from .likeness import applied
from .packing import bits_for, pack

MOST = 60e6  # bytes of the folder


def spots(places, starts):
    """The token that is said in each frame: of characters [frames] and where each token starts, [tokens]."""
    return np.searchsorted(starts, places, side="right").clip(1) - 1


def gathered(work):
    """({array name: array}, all texts, {token: id})."""
    read = {name: Shard(path) for name, path in shards(work, verify=True).items()}
    said = [text for shard in read.values() for text in shard.texts]
    taught = [text for name, shard in read.items() if name not in SPLITS for text in shard.texts]
    bpe = tokens.learn(taught)
    folder = Path(work) / "data"
    vocabulary = tokens.write(folder, *bpe)
    encode = tokens.Tokens(folder)
    columns = {name: [] for name in ("ids", "tokens", "lengths", "speakers", "split", "codes", "phones", "spots")}
    vectors, of, count = [], [], 0
    for name, shard in read.items():
        split = SPLITS.index(name) + 1 if name in SPLITS else 0
        for utterance, text in enumerate(shard.texts):
            ids, starts = encode(text)
            own = slice(shard.starts[utterance], shard.starts[utterance + 1])
            columns["ids"].append(np.array(ids, np.uint16))
            columns["tokens"].append(len(ids))
            columns["spots"].append(spots(shard.places[own], starts).astype(np.uint8))
            if utterance in shard.vectors:
                vectors.append(shard.vectors[utterance])
                of.append(count)
            count += 1
        columns["lengths"].append(shard.lengths)
        columns["speakers"].append(shard.speakers)
        columns["split"].append(np.full(len(shard.lengths), split))
        columns["codes"].append(shard.codes)
        columns["phones"].append(shard.phones)
    arrays = {key: np.concatenate(rows) for key, rows in columns.items() if key != "tokens"}
    books = arrays["codes"].shape[1]
    arrays |= {
        "tokens": np.array(columns["tokens"], np.uint8),
        "lengths": arrays["lengths"].astype(np.uint8),
        "speakers": arrays["speakers"].astype(np.uint16),
        "split": arrays["split"].astype(np.uint8),
        "codes": pack(arrays["codes"], bits_for(CODES)),
        "codebooks": np.array(books),
        "vectors": applied(np.array(vectors), Path(work) / likeness.NAME).astype(np.float16),
        "of": np.array(of, np.uint32),
        "role": np.array(encode.role(), np.uint16),
    }
    return arrays, said, vocabulary


def add_options(options):
    del options  # it has none of its own


def main(options):
    folder = Path(options.work) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    arrays, said, vocabulary = gathered(options.work)
    partial = folder / "data.partial.npz"
    np.savez_compressed(partial, **arrays)
    partial.replace(folder / "data.npz")
    speakers = [{k: v for k, v in s.items() if k != "speaker"} | vars(s["speaker"]) for s in draw(SEED)]
    (folder / "speakers.json").write_text(json.dumps(speakers))
    settings = model_config() | {"assistant_token_id": vocabulary[tokens.ROLE]}
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    frames, text = int(arrays["lengths"].sum(dtype=int)), len(arrays["ids"])
    print(
        f"gather: {frames / 45000:.1f} hours, {len(arrays['lengths'])} utterances, {text / frames:.2f} tokens a frame, "
        f"{sum(map(len, said)) / max(1, text):.1f} letters a token, {sum(sizes.values()) / 1e6:.1f} MB"
    )
    print(f"data.npz {hashlib.sha256((folder / 'data.npz').read_bytes()).hexdigest()}")
    if sum(sizes.values()) > MOST:
        raise SystemExit(f"gather: the folder has {sum(sizes.values()) / 1e6:.1f} MB, above {MOST / 1e6:.0f}")
