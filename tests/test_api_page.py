"""docs/api.md is what the docstrings say today."""

import dataclasses
from typing import overload

import pytest

from docs import api
from mlx_qwen3tts import errors


@pytest.fixture(scope="module")
def text():
    return api.page()


def test_the_page_is_up_to_date(text):
    assert api.PAGE.read_text(encoding="utf-8") == text, "run `make api`"


def test_it_has_every_public_name_and_kind_of_error(text):
    import mlx_qwen3tts
    from mlx_qwen3tts import voices

    kinds = {name for name, thing in vars(errors).items() if isinstance(thing, type)}
    for name in {*mlx_qwen3tts.__all__, *voices.__all__} - {*api.COMMANDS} - kinds:
        assert text.count(f"\n### {name}\n") == 1, name
    for name in kinds:
        assert f"| `{name}(" in text, name


def test_everything_public_is_explained(text):
    """A class or function without a word about it is not ready to be public."""
    blocks = text.split("\n### ")[1:]
    silent = [block.split("\n", 1)[0] for block in blocks if not block.split("```")[2].split("####")[0].strip()]
    assert silent == []


@pytest.mark.parametrize(("old", "status"), [("an old page", 1), ("the page", 0)])
def test_check(tmp_path, monkeypatch, old, status):
    monkeypatch.setattr(api, "PAGE", tmp_path / "api.md")
    monkeypatch.setattr(api, "page", lambda: "the page")
    api.PAGE.write_text(old)
    with pytest.raises(SystemExit) as stopped:
        api.main(["--check"])
    assert stopped.value.code == status and api.PAGE.read_text() == old
    api.main([])
    assert api.PAGE.read_text() == "the page"


def sample(self, first, /, second: "int" = 1, *more, keyword: str = "it's", **rest) -> None: ...


def long_sample(
    self, the_first_of_the_parameters, /, second_of_them: int = 1, *, keyword_of_theirs: str = "a", another=None
): ...


def test_signatures_are_those_of_the_source():
    assert api.stub(api.parsed(sample)) == (
        'def sample(self, first, /, second: "int" = 1, *more, keyword: str = "it\'s", **rest) -> None: ...'
    )
    assert api.stub(api.parsed(long_sample)).splitlines() == [
        "def long_sample(",
        "    self,",
        "    the_first_of_the_parameters,",
        "    /,",
        "    second_of_them: int = 1,",
        "    *,",
        '    keyword_of_theirs: str = "a",',
        "    another=None,",
        "): ...",
    ]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Said of it."""

    first: int
    second: str = "a"
    third: dict = dataclasses.field(default_factory=dict)
    fourth: float | None = dataclasses.field(default=None, repr=False)
    _hidden: int = 0

    @overload
    def call(self, what: int) -> int: ...
    @overload
    def call(self, what: str) -> str: ...
    def call(self, what):
        """Explained."""

    @property
    def half(self) -> float:
        return 0.5

    def __len__(self):
        """Special, and explained."""
        return 1

    def __repr__(self):
        return ""


def test_classes_are_shown_with_fields_overloads_and_what_is_explained(monkeypatch):
    monkeypatch.setattr(api, "OURS", __name__)
    assert "\n\n".join(api.describe("Sample", Sample)) == SAMPLE_PAGE


SAMPLE_PAGE = """\
### Sample

```python
@dataclasses.dataclass(frozen=True)
class Sample:
    first: int
    second: str = "a"
    third: dict = {}
    fourth: float | None = None
```

Said of it.

#### Sample.call

```python
def call(self, what: int) -> int: ...
def call(self, what: str) -> str: ...
```

Explained.

#### Sample.half

```python
@property
def half(self) -> float: ...
```

#### Sample.__len__

```python
def __len__(self): ...
```

Special, and explained."""
