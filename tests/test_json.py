"""JSON that every program reads: without NaN and Infinity, wherever the package writes some."""

import ast
import json
import math
from pathlib import Path

import pytest

import mlx_qwen3tts
from mlx_qwen3tts import cli
from mlx_qwen3tts.checkpoint.writer import write_json
from mlx_qwen3tts.errors import CheckpointError, InvalidValue
from mlx_qwen3tts.files.json_text import json_text

PACKAGE = Path(mlx_qwen3tts.__file__).parent


def strict(text):
    def refused(constant):
        raise AssertionError(f"{constant} in {text}")

    return json.loads(text, parse_constant=refused)


def test_numbers_that_json_cannot_hold_are_refused_by_their_place():
    value = {"parents": [{"weight": 1.0}, {"weight": math.nan}]}
    with pytest.raises(InvalidValue, match=r"^parents\[1\]\.weight is not a finite number"):
        json_text(value)
    with pytest.raises(InvalidValue, match=r"^it is not a finite number"):
        json_text(-math.inf)
    with pytest.raises(InvalidValue, match="cannot be written as JSON: Exceeds the limit"):
        json_text({"n": 10**5000})
    assert strict(json_text(value, null=True)) == {"parents": [{"weight": 1.0}, {"weight": None}]}
    assert strict(json_text((math.inf, [-math.inf], 1.5, "NaN"), null=True)) == [None, [None], 1.5, "NaN"]
    assert value["parents"][1]["weight"] is not None  # nothing is changed in place
    assert json_text({"ü": [1]}, ensure_ascii=False, separators=(",", ":")) == '{"ü":[1]}'


def test_a_name_that_is_not_utf_8_can_be_written_and_read_again():
    text = json_text({"file": "ü\udcff"}, ensure_ascii=False)
    assert text == '{"file": "ü\\udcff"}' and json.loads(text.encode()) == {"file": "ü\udcff"}


def test_reports_have_null_for_an_undefined_figure(capsys):
    cli.print_json({"spread": math.nan, "scores": {"anna": math.inf}})
    assert strict(capsys.readouterr().out) == {"spread": None, "scores": {"anna": None}}


def test_a_config_with_infinity_is_not_converted(tmp_path):
    with pytest.raises(CheckpointError, match=r"^config\.json: talker\.rope_theta is not a finite number"):
        write_json(tmp_path / "config.json", {"talker": {"rope_theta": math.inf}})
    assert not (tmp_path / "config.json").exists()


def test_one_place_writes_json():
    """Any other would have to remember allow_nan=False."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps", "JSONEncoder"):
                if not ast.unparse(node).startswith("plistlib."):
                    found.append((path.relative_to(PACKAGE).as_posix(), node.attr))
            elif isinstance(node, ast.ImportFrom) and node.module == "json":
                found.append((path.relative_to(PACKAGE).as_posix(), "from json import"))
    assert found == [("files/json_text.py", "dumps")]
