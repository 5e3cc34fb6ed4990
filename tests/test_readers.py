"""The readers of small files: whatever the bytes are, an array comes out or an error of ours, at once."""

import json
import struct
import warnings

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3tts import Direction, Library, Voice, VoiceSpace
from mlx_qwen3tts.errors import CheckpointError, InvalidValue, QwenTTSError, VoiceError, VoiceNotFound, WrongType
from mlx_qwen3tts.files.npy import read_npy
from mlx_qwen3tts.files.safetensors import read_header
from mlx_qwen3tts.files.tensors import read_all
from tests.bad_input.samples import npy

V = np.linspace(-1, 1, 8, dtype=np.float32)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.float32(3),
        np.zeros((0, 5)),
        np.array(["a", "bc"]),
        np.ones(3) * 1j,
        np.arange(3, dtype=">i4"),
        np.ones(2, bool),
    ],
)
def test_what_numpy_writes_is_read_as_numpy_reads_it(array, tmp_path):
    for write in (np.save, lambda path, array: np.lib.format.write_array(path.open("wb"), np.asarray(array), (2, 0))):
        write(tmp_path / "a.npy", array)
        found = read_npy(tmp_path / "a.npy")
        assert found.dtype == array.dtype and np.array_equal(found, np.load(tmp_path / "a.npy"))


def test_what_mlx_writes_is_read(tmp_path):
    mx.save(str(tmp_path / "a.npy"), mx.arange(5.0))
    assert read_npy(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]


def header(text):
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + V.tobytes()


PLAIN = b"{'descr': '<f4', 'fortran_order': False, 'shape': (8,), }"
BAD_ARRAYS = {
    "a zip's first bytes": b"PK\x03\x04" + npy(V),
    "a torn header": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': ((8,), \n"),
    "an overlong length": header(PLAIN.replace(b"8", b"9" * 30)),
    "an overlong shape": header(PLAIN.replace(b"8,", b"1," * 200)),
    "no elements, and a length that overflows": header(PLAIN.replace(b"8,", b"0," + b"9" * 30)),
    "many axes that overflow together": header(PLAIN.replace(b"8,", b"0," + b"999999999999," * 6)),
    "a negative length": header(PLAIN.replace(b"8", b"-8")),
    "a length of another kind": header(PLAIN.replace(b"8", b"8.0")),
    "thousands of digits": header(PLAIN.replace(b"8", b"9" * 5000)),
    "nested without end": header(b"(" * 9000),
    "unary without end": header(b"-" * 9000 + b"1"),
    "a null character": header(b"\0" * 60),
    "a dtype that is none": header(PLAIN.replace(b"<f4", b"<f3")),
    "a dtype of objects": header(PLAIN.replace(b"<f4", b"|O")),
    "a dtype with a shape": header(PLAIN.replace(b"<f4", b"(9999999,)f4")),
    "elements without bytes": header(PLAIN.replace(b"<f4", b"|S0")),
    "records": header(PLAIN.replace(b"'<f4'", b"[('a', '<f4')]")),
    "a key too few": header(PLAIN.replace(b"'fortran_order': False, ", b"")),
    "an unknown version": npy(V).replace(b"NUMPY\x01", b"NUMPY\x09"),
    "a header longer than the file": b"\x93NUMPY\x02\0\xff\xff\xff\xff" + PLAIN,
    "a cut header": npy(V)[:9],
    "cut data": npy(V)[:-1],
}


@pytest.mark.parametrize("content", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_are_none(content, tmp_path, refused, checkpoint):
    """The same reader stands behind voices and codes."""
    (tmp_path / "bad.npy").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        with pytest.raises(InvalidValue):
            read_npy(tmp_path / "bad.npy")
        with pytest.raises(VoiceError, match=r"embedding .*bad.npy: "):
            Voice.load(tmp_path / "bad.npy")
        assert "codes bad.npy: " in refused("codec", "decode", "--model", checkpoint("base"), "bad.npy")


def tensors(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + V.tobytes()


ENTRY = {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}
BAD_TENSORS = {
    "thousands of digits": tensors(b'{"x": ' + b"9" * 5000 + b"}"),
    "an overlong length": tensors({"x": {**ENTRY, "shape": [0, 10**30], "data_offsets": [0, 0]}}),
    "an overlong shape": tensors({"x": {**ENTRY, "shape": [8] + [1] * 100}}),
    "half a surrogate pair": tensors(b'{"__metadata__": {"a": "\\ud800"}}'),
    "half a surrogate pair as a name": tensors(b'{"\\udfff": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}'),
}


@pytest.mark.parametrize("content", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_headers_that_are_none(content, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        read_header(tmp_path / "bad.safetensors")
    for load in (Voice.load, Direction.load, VoiceSpace.load):
        with pytest.raises(QwenTTSError, match=r"bad.safetensors"):
            load(tmp_path / "bad.safetensors")


def test_a_header_of_gigabytes_is_not_read(tmp_path, monkeypatch):
    with (tmp_path / "bad.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 3 << 30))
        file.truncate((3 << 30) + 100)  # sparse
    with pytest.raises(CheckpointError, match="its header would be 3221225472 bytes"):
        read_header(tmp_path / "bad.safetensors")


def test_a_recipe_nested_too_deep(tmp_path):
    recipe: dict = {}
    for _ in range(400):
        recipe = {"parents": [{"recipe": recipe}]}
    with pytest.raises(VoiceError, match="nested more than 150 deep"):
        Voice(V, recipe=recipe)


@pytest.mark.parametrize("content", [b'{"n": [' + b"[" * 5000 + b"]" * 5000 + b"]}", b"[]", b"{}", b'{"n": 1}', b"5"])
def test_a_direction_with_another_report(content, tmp_path):
    X = np.random.RandomState(0).standard_normal((6, 8)).astype(np.float32)
    Direction.fit(X, [0, 1] * 3).save(tmp_path / "d.safetensors")
    arrays, metadata = read_all(tmp_path / "d.safetensors", "direction")
    from safetensors.numpy import save_file

    arrays = {name: np.array(array) for name, array in arrays.items()}
    save_file(arrays, tmp_path / "d.safetensors", {**metadata, "report": content.decode()})
    with pytest.raises(InvalidValue, match="its metadata are not those of a direction"):
        Direction.load(tmp_path / "d.safetensors")


@pytest.mark.parametrize("load", [Voice.load, Direction.load, VoiceSpace.load, Voice(V).save, Library])
def test_paths_that_are_none(load):
    for path, error in ((5, WrongType), (None, WrongType), (b"a.npy", WrongType), ([], WrongType)):
        with pytest.raises(error, match="must be a path"):
            load(path)
    with pytest.raises(InvalidValue, match="has a null character"):
        load("a\0.safetensors")


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    """As when another user's file may not be opened, or the disk fails."""
    Voice(V).save(tmp_path / "v.safetensors")
    np.save(tmp_path / "v.npy", V)

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    for name in ("v.safetensors", "v.npy"):
        with pytest.raises(VoiceError, match=rf"embedding .*{name}: cannot be read: Permission denied"):
            Voice.load(tmp_path / name)
    with pytest.raises(InvalidValue, match=r"voice space .*: cannot be read: Permission denied"):
        VoiceSpace.load(tmp_path / "v.safetensors")
    monkeypatch.undo()
    with pytest.raises(VoiceError, match="File name too long"):
        Voice.load("x" * 5000 + ".npy")


def test_a_file_that_goes_while_it_is_read(tmp_path, monkeypatch):
    Voice(V).save(tmp_path / "v.safetensors")
    monkeypatch.setattr("pathlib.Path.is_file", lambda path: path.unlink() or True)
    with pytest.raises(VoiceNotFound, match=r"v.safetensors: no such file"):
        Voice.load(tmp_path / "v.safetensors")


@pytest.mark.parametrize("notes", [None, "a note", 5, [1]])
def test_notes_that_are_none(notes):
    with pytest.raises(WrongType, match="the notes of a voice must be a list of strings"):
        Voice(V, notes=notes)
