"""Values that are not a model, not codes and not a recording, given to the Python interface: errors of our kinds."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Codec, Qwen3TTS, SpeakerEncoder
from mlx_qwen3tts.errors import CheckpointError, InvalidValue, QwenTTSError, WrongType


@pytest.mark.parametrize("wrong", [None, 5, b"model", [], {}, True, np.zeros(3)], ids=repr)
def test_what_is_no_model_at_all(wrong):
    for opened in (Codec, Qwen3TTS, SpeakerEncoder):
        with pytest.raises(WrongType, match=f"hub id, not of type {type(wrong).__name__}") as raised:
            opened.from_pretrained(wrong)
        assert raised.value.param == "model"
        with pytest.raises(WrongType, match="folder must be a path, not of type"):
            opened(wrong)


@pytest.mark.parametrize("name", ["", "\0", "a\0b/c", "\ud800/x", "x" * 5000, "nowhere"])
def test_names_that_no_folder_can_have(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for opened in (Codec, Qwen3TTS, SpeakerEncoder):
        with pytest.raises(QwenTTSError, match="no such folder"):
            opened.from_pretrained(name)
        with pytest.raises(CheckpointError, match=r"has no config\.json|config\.json.* cannot be read"):
            opened(name)


def test_a_library_that_is_no_folder():
    with pytest.raises(WrongType, match="folder must be a path, not 5"):
        Qwen3TTS.from_pretrained("miniature", library=5)


NOT_CODES = [None, "codes", b"x", [], {}, object(), True, [[1.5] * 8], [["a"] * 8], [[None] * 8], [[2**70] * 8]]
NOT_CODES += [np.zeros((2, 8), kind) for kind in ("U1", object, complex, bool, "M8[s]", np.float32)]
NOT_CODES += [mx.zeros((2, 8)), mx.zeros((2, 8), mx.bool_)]


@pytest.fixture(scope="module")
def codec():
    return Codec.from_pretrained("miniature")


@pytest.mark.parametrize("wrong", NOT_CODES, ids=lambda wrong: f"{type(wrong).__name__} {getattr(wrong, 'dtype', '')}")
def test_what_are_no_codes(wrong, codec):
    with pytest.raises(WrongType, match="codes must be integers, not ") as raised:
        codec.decode(wrong)
    assert raised.value.param == "codes"


@pytest.mark.parametrize(
    "wrong", [5, [1, 2], [[1] * 8, [2]], [[1] * 7], np.full((1, 8), 2**40), [[2**63] * 8]], ids=repr
)
def test_codes_that_this_codec_cannot_have_made(wrong, codec):
    with pytest.raises(InvalidValue, match="codes ") as raised:
        codec.decode(wrong)
    assert raised.value.param == "codes"


@pytest.mark.parametrize("wrong", [None, 5, b"x", [], {}, object(), np.zeros(9, object), (1, 2), ({}, 24000), ("a", 1)])
def test_what_is_no_recording(wrong, codec):
    with pytest.raises(QwenTTSError):
        codec.encode(wrong)
