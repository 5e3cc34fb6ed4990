"""Parity with the official package, by submodule and end to end, from committed goldens; live under the marker."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from convert.make_goldens import digest, make_checkpoint
from convert.parity import check, materialise, run_reference
from convert.suite import SUITE
from mlx_qwen3tts import Qwen3TTS

GOLDENS = Path(__file__).parent / "goldens"
MANIFEST = json.loads((GOLDENS / "manifest.json").read_text())
CASES = [(name, case) for name, (_, cases) in SUITE.items() for case in cases]


@pytest.fixture(scope="module")
def goldens():
    loaded = {}

    def get(name):
        if name not in loaded:
            loaded[name] = dict(np.load(GOLDENS / f"{name}.npz"))
        return loaded[name]

    return get


@pytest.mark.parametrize("name", SUITE)
def test_the_checkpoint_is_the_one_the_goldens_were_made_from(name, checkpoint):
    assert digest(checkpoint(name)) == MANIFEST[name]["weights_sha256"]


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}/{case['name']}" for name, case in CASES])
def test_golden(name, case, model, goldens, tmp_path):
    tts = model(name)
    [made] = materialise([case], tmp_path, tts.embedding_dim)
    check(tts, made, goldens(name))


@pytest.mark.reference
@pytest.mark.parametrize("name", SUITE)
def test_live_on_other_weights(name, tmp_path):
    offset = int(os.environ.get("QWEN_TTS_SEED_OFFSET", "1000"))
    folder, dimension = make_checkpoint(name, tmp_path, offset)
    made = materialise(SUITE[name][1], tmp_path, dimension)
    arrays = run_reference(folder, made, tmp_path / "out.npz")
    tts = Qwen3TTS.from_pretrained(folder, dtype="float32")
    for case in made:
        check(tts, case, arrays)
