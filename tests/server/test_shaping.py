"""What the studio's sliders stand on: the directions and what they were shown to do, and the terms of an expression."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.server import pages, shaping
from mlx_qwen3tts.voices.directions.direction import Direction

WIDTH = 64
HEAVIEST = 150_000  # bytes of the page and all its parts, uncompressed
PARTS = [path for path in pages.STATIC.iterdir() if path.name != "openapi.json"]


@pytest.fixture(scope="module")
def client(shelf, library):
    client, server = shelf
    server.voices.library.add("two words", library["anna"])
    server.voices.library.add_direction("height", fitted(np.arange(24.0)))
    server.voices.library.add_direction("noise", fitted(np.random.default_rng(5).permutation(np.arange(24.0))))
    server.voices.library.add_direction("sides", fitted(["no"] * 12 + ["yes"] * 12, method="mean"))
    return client


def fitted(labels, method="ridge"):
    """A direction from voices that lie in a line."""
    generator = np.random.default_rng(0)
    X = np.outer(np.linspace(-1, 1, 24), generator.normal(size=WIDTH)) + 0.05 * generator.normal(size=(24, WIDTH))
    return Direction.fit(X.astype(np.float32), list(labels), method=method, groups=list(range(24)))


def test_directions_say_how_far_they_go_and_what_they_are_worth(client):
    listed = {one["name"]: one for one in client.get("/v1/audio/directions").json()["data"]}
    assert list(listed) == ["height", "noise", "sides"]
    assert listed["height"]["proven"] and listed["height"]["correlation"] > 0.9
    assert not listed["noise"]["proven"] and listed["noise"]["correlation"] < 0.3
    assert listed["sides"]["proven"] and listed["sides"]["right"] > 20 and listed["sides"]["positive"] == "yes"
    for one in listed.values():
        least, most = one["range"]
        assert least == -most and 0 < most <= 3 and one["factor"] == f"@{one['name']}"
    assert listed["height"]["range"] == [-3, 3], "no further, whatever the labels say"


TERMS = [
    ("anna", [(1, "anna", "voice")]),
    ("alloy", [(1, "alloy", "voice")]),
    ("two words", [(1, '"two words"', "voice")]),
    ("anna + ben - 1.5*@height", [(1, "anna", "voice"), (1, "ben", "voice"), (-1.5, "@height", "direction")]),
    ("anna:0.7,ben:0.3", [(0.7, "anna", "voice"), (0.3, "ben", "voice")]),
    ("2*(anna + ben) + cleo", [(2, "(anna + ben)", "group"), (1, "cleo", "voice")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "terms"), TERMS, ids=[row[0] for row in TERMS])
def test_the_terms_of_an_expression(client, text, terms):
    read = client.post("/v1/audio/expressions", json={"expression": text}).json()
    assert [(one["weight"], one["factor"], one["kind"]) for one in read["terms"]] == terms and read["error"] is None


WRONG = [
    ("anna + ", 7, "^"),
    ("anna*0.5 + nobody*0.5", 11, "^"),
    ("anna + @nothing", 7, "^"),
    ("nobody", 0, ""),
    ("", 0, ""),
]


@pytest.mark.parametrize(("text", "place", "pointer"), WRONG, ids=[row[0] for row in WRONG])
def test_mistakes_have_a_place(client, text, place, pointer):
    read = client.post("/v1/audio/expressions", json={"expression": text}).json()
    assert read["terms"] is None and read["error"]["place"] == place
    assert pointer in read["error"]["message"]


def test_an_expression_is_never_a_path(client, tmp_path):
    fitted(np.arange(24.0)).save(tmp_path / "out.safetensors")
    np.save(tmp_path / "voice.npy", np.ones(WIDTH, np.float32))
    for text in (str(tmp_path / "voice.npy"), f'anna + @"{tmp_path / "out"}"', "anna + @../out"):
        error = client.post("/v1/audio/expressions", json={"expression": text}).json()["error"]
        assert error["code"] in ("voice_not_found", "direction_not_found"), text
    assert client.post("/v1/audio/expressions", json={"expression": 5}).status_code == 400


def test_the_miniature_brings_directions_of_its_own(speaking_url):
    listed = {one["name"]: one for one in httpx.get(f"{speaking_url}/v1/audio/directions").json()["data"]}
    assert set(listed) == {"brightness", "pace", "pitch", "size"}
    assert all(one["proven"] and one["correlation"] > 0.9 for one in listed.values())
    report = Direction.load(hub.SHIPPED["miniature"] / "voices" / "directions" / "pitch.safetensors").report
    span = (report.labels["most"] - report.labels["least"]) / report.per_radius
    assert listed["pitch"]["range"] == pytest.approx([-span, span], abs=0.01)
    read = httpx.post(f"{speaking_url}/v1/audio/expressions", json={"expression": "voice01 + 0.5*@pitch"}).json()
    assert read["error"] is None
    body = {"input": "Hello.", "voice": "voice01 + 0.5*@pitch", "max_new_tokens": 4, "response_format": "pcm"}
    assert httpx.post(f"{speaking_url}/v1/audio/speech", json=body, timeout=60).status_code == 200


def test_the_page_is_light():
    sizes = {name: (pages.STATIC / name).stat().st_size for name in pages.parts("index.html")}
    words = [sizes.pop(f"{code}.json") for code in ("en", "zh")]  # a visit loads one of them
    assert not any(name.endswith(".json") for name in sizes), "the words of another page are not loaded"
    assert {"en.json", "browser-zh.json"} <= set(pages.parts("browser.html"))
    assert len(sizes) > 20 and sum(sizes.values()) + max(words) < HEAVIEST
    assert (pages.STATIC / "htm-LICENSE.txt").is_file()


def test_both_languages_have_all_words():
    english, chinese = ({}, {})
    for begin in ("", "browser-"):
        one, other = (json.loads((pages.STATIC / f"{begin}{code}.json").read_text("utf-8")) for code in ("en", "zh"))
        assert one.keys() == other.keys() and not one.keys() & english.keys()
        english.update(one)
        chinese.update(other)
    source = "".join(path.read_text("utf-8") for path in PARTS if path.suffix == ".js")
    unused = [key for key in english if f'"{key}"' not in source and f"`{key.partition('-')[0]}-$" not in source]
    assert unused == []


def test_every_part_is_served_under_the_policy(client):
    for path in PARTS:
        if path.suffix in pages.TYPES:
            answer = client.get(f"/static/{path.name}")
            assert answer.status_code == 200 and "script-src 'self'" in answer.headers["content-security-policy"]
            away = re.findall(r"https?://(?!www\.w3\.org)", path.read_text("utf-8"))  # that one names a kind of element
            assert not away or path.name == "htm.js", path


# Directions from voices and their labels


@pytest.fixture(scope="module")
def people(client, shelf):
    """Twelve voices in a line, and their places on it."""
    generator = np.random.default_rng(1)
    line, places = generator.normal(size=WIDTH), np.linspace(-1, 1, 12)
    names = [f"p{number:02}" for number in range(12)]
    for name, place in zip(names, places, strict=True):
        shelf[1].voices.library.add(name, (3 + place * line + 0.05 * generator.normal(size=WIDTH)).astype(np.float32))
    return dict(zip(names, (30 + 40 * places).tolist(), strict=True))


def fit(client, **body):
    return client.post("/v1/audio/directions", json=body)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_direction_is_fitted_and_kept(client, people, kind):
    labels = people if kind == "numbers" else {name: "old" if age > 30 else "young" for name, age in people.items()}
    how = {} if kind == "numbers" else {"positive": "old"}
    tried = fit(client, labels=labels, **how).json()
    assert tried["kept"] is False and tried["proven"] and tried["n"] == 12, tried["report"]
    assert kind not in {one["name"] for one in client.get("/v1/audio/directions").json()["data"]}
    kept = fit(client, labels=labels, name=kind, **how).json()
    assert kept["kept"] is True and kept["factor"] == f"@{kind}" and kept["report"] == tried["report"]
    assert kept["labels"] == ({"least": -10, "most": 70} if kind == "numbers" else {"young": 6, "old": 6})
    assert kind in {one["name"] for one in client.get("/v1/audio/directions").json()["data"]}
    read = client.post("/v1/audio/expressions", json={"expression": f"anna + 0.5*@{kind}"}).json()
    assert read["error"] is None
    again = fit(client, labels=labels, name=kind, **how)
    assert again.status_code == 409 and again.json()["error"]["code"] == "name_taken"
    assert fit(client, labels=labels, name=kind, overwrite=True, **how).status_code == 200
    found = client.post("/v1/audio/voices/search", json={"voice": f"@{kind}", "k": 1}).json()
    assert found[0]["name"] in ("p11", "p10")


def test_a_direction_is_deleted_where_it_is_the_librarys(client, people, speaking_url):
    assert fit(client, labels=people, name="two words").json()["own"]
    done = client.delete("/v1/audio/directions/two words")
    assert done.status_code == 200 and done.json()["deleted"]
    assert "two words" not in {one["name"] for one in client.get("/v1/audio/directions").json()["data"]}
    for name in ("two words", "../voices/anna", "nothing"):
        gone = client.delete(f"/v1/audio/directions/{name.replace('/', '%2F')}")
        assert gone.status_code == 404 and gone.json()["error"]["code"] == "direction_not_found"
    brought = httpx.delete(f"{speaking_url}/v1/audio/directions/pitch")
    assert brought.status_code == 400 and "comes with the model" in brought.json()["error"]["message"]


def test_voices_of_one_person_are_left_out_together(client, people, shelf):
    """Six people with two recordings each, whose labels say nothing: only the other recording gives one away."""
    generator = np.random.default_rng(7)
    labels, groups = {}, {}
    for person in range(6):
        own = generator.normal(size=WIDTH)
        for number in range(2):
            name = f"r{person}{number}"
            shelf[1].voices.library.add(name, (3 + own + 0.05 * generator.normal(size=WIDTH)).astype(np.float32))
            labels[name], groups[name] = "ab"[person % 2], f"person {person}"
    flattered, honest = (fit(client, labels=labels, positive="b", **more).json() for more in ({}, {"groups": groups}))
    assert flattered["right"] == 12 and flattered["groups"] == 0 and "No groups were given" in flattered["report"]
    assert honest["groups"] == 6 and honest["right"] < 10 and "No groups were given" not in honest["report"]
    wanted = Direction.fit(
        [shelf[1].voices.named(name) for name in labels], list(labels.values()), positive="b",
        groups=list(groups.values()), names=list(labels),
    )  # fmt: skip
    assert honest["report"] == str(wanted.report)
    some = fit(client, labels=labels, positive="b", groups={"r00": "r10", "r01": "r10"}).json()
    assert some["groups"] == 11, "a voice without one is a group of its own, whatever it is called"
    kept = fit(client, labels=labels, positive="b", groups=groups, name="grouped").json()
    assert kept["report"] == honest["report"]
    for name in labels:
        shelf[1].voices.library.remove(name)
    client.delete("/v1/audio/directions/grouped")


FOUR = {"p00": "a", "p01": "a", "p02": "b", "p03": "b"}
BAD_FITS = [
    ({}, "labels", "must be an object"),
    ({"labels": [1, 2, 3, 4]}, "labels", "must be an object"),
    ({"labels": {"p00": "a", "p01": "b", "p02": None}}, "labels", "2 voices have a label; 4 to 100"),
    ({"labels": {f"v{n}": n for n in range(101)}}, "labels", "101 voices"),
    ({"labels": dict.fromkeys(FOUR, "a")}, "labels", "all voices have the same label 'a'"),
    ({"labels": dict.fromkeys(FOUR, 30)}, "labels", "all voices have the same label 30"),
    ({"labels": {**FOUR, "p03": "a"}}, "labels", "label 'b' has 1 voice; 2 are needed"),
    ({"labels": {**FOUR, "p03": 5}}, "labels", "all words or all numbers"),
    ({"labels": {**FOUR, "p03": True}}, "labels", "all words or all numbers"),
    ({"labels": {**FOUR, "p03": " "}}, "labels", "all words or all numbers"),
    ({"labels": {**FOUR, "p03": "x" * 41}}, "labels", "41 characters"),
    ({"labels": {**FOUR, "p03": "c"}}, "positive", "there are 3 labels"),
    ({"labels": FOUR, "positive": "z"}, "positive", "no voice has the label 'z'"),
    ({"labels": {"p00": 1, "p01": 2, "p02": 3, "p03": 4}, "positive": "4"}, "positive", "these are numbers"),
    ({"labels": {"p00": 1, "p01": 2, "p02": 3, "p03": 1e300}}, "label", "not within"),
    ({"labels": {**FOUR, "nobody": "a"}}, "labels", "'nobody' is not here"),
    ({"labels": {**FOUR, "../p00": "a"}}, "labels", "is not here"),
    ({"labels": {**FOUR, "anna + ben": "a"}}, "labels", "is not here"),
    ({"labels": FOUR, "groups": ["a"]}, "groups", "must be an object"),
    ({"labels": FOUR, "groups": {"p00": 5}}, "groups", "must be words, not 5"),
    ({"labels": FOUR, "groups": {"p00": " "}}, "groups", "must be words, not ' '"),
    ({"labels": FOUR, "groups": {"p00": "x" * 41}}, "groups", "has 41 characters"),
    ({"labels": FOUR, "groups": {"p09": "a"}}, "groups", "voice 'p09' has a group and no label"),
    ({"labels": FOUR, "name": "../out"}, "name", "may not be empty"),
    ({"labels": FOUR, "name": 5}, "name", "must be a string"),
    ({"labels": FOUR, "overwrite": "yes"}, "overwrite", "true or false"),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD_FITS, ids=[row[2] for row in BAD_FITS])
def test_bad_fits(client, people, body, param, message):
    answer = fit(client, **body)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param and message in error["message"], error


def test_who_refused_teaches_nothing(client, people, shelf):
    shelf[1].voices.library.add("refuser", np.ones(WIDTH, np.float32), consent="refused")
    answer = fit(client, labels={**FOUR, "refuser": "b"})
    assert answer.status_code == 400 and "refused" in answer.json()["error"]["message"]
    shelf[1].voices.library.remove("refuser")


def test_no_more_directions_than_there_are_places_for(client, people, monkeypatch):
    monkeypatch.setattr(shaping, "MOST_DIRECTIONS", 1)
    answer = fit(client, labels=people, name="one more")
    assert answer.status_code == 400 and "all it takes this way" in answer.json()["error"]["message"]


def test_an_emotion_that_ranks_is_proven():
    """No threshold fits all speakers, and in each the right voice comes first."""
    generator = np.random.default_rng(3)
    X, labels, groups = [], [], []
    for speaker in range(6):
        own = 8 * generator.normal(size=WIDTH)
        for emotion in range(6):
            X.append(own + (2.0 * (np.arange(WIDTH) < 20) if emotion == 0 else 0) + 0.2 * generator.normal(size=WIDTH))
            labels.append("joy" if emotion == 0 else "none")
            groups.append(speaker)
    report = Direction.fit(np.array(X, np.float32), labels, groups=groups, positive="joy").report
    assert report.accuracy <= report.chance and report.first[0] >= 5, str(report)
    assert shaping.ranks(report) and shaping.proven(SimpleNamespace(report=report))
    assert not shaping.ranks(replace(report, first=[2, 6])) and not shaping.ranks(replace(report, first=None))
