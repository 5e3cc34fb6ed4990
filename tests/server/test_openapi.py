"""The OpenAPI document is valid, names every route, and real answers are as it says."""

import json

import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from convert.parity import recording, vector
from mlx_qwen3tts import Library
from mlx_qwen3tts.server import asking, pages

DOCUMENT = json.loads((pages.STATIC / "openapi.json").read_text("utf-8"))
NOT_API = {"/", "/static/{name}", "/browser", "/browser/{name}", "/openapi.json", "/v1", "/v1/", "/mcp"}


def test_the_document_is_valid_and_served(client):
    validate(DOCUMENT)
    assert client.get("/openapi.json").json() == DOCUMENT


def test_it_names_every_route(served):
    routes = {}
    for route in served[1].app.routes:
        if isinstance(route, Route):
            routes[route.path.replace(":path", "")] = {m.lower() for m in route.methods or ()} - {"head"}
    documented = {path: set(methods) for path, methods in DOCUMENT["paths"].items()}
    assert {path: methods for path, methods in routes.items() if path not in NOT_API} == documented


def test_it_names_every_field_that_is_understood():
    known = set(DOCUMENT["components"]["schemas"]["Speech"]["properties"])
    assert known >= asking.SAMPLING
    body = asking.Body(dict.fromkeys(known, ""))
    assert set(body.values) == known, "no synonyms"


def calls(folder):
    sound = recording(folder / "a.wav", 1, 3.5).read_bytes()
    values = json.dumps([float(x) for x in vector(64, 7)])
    short = {"input": "Hello.", "voice": "anna", "max_new_tokens": 4}
    keep = {"name": (None, "documented"), "consent": (None, "given"), "speaker_embedding": (None, values)}
    other = Library(folder / "other")
    other.add("imported", vector(64, 9))
    other.export(folder / "other.zip")
    zipped = (folder / "other.zip").read_bytes()
    kept = {**keep, "name": (None, "kept")}
    return [
        ("get", "/v1/models", {}),
        ("get", "/v1/audio/models", {}),
        ("get", "/v1/models/tts-1", {}),
        ("get", "/v1/models/nothing", {}),
        ("get", "/health", {}),
        ("get", "/v1/audio/voices", {}),
        ("get", "/v1/audio/voices?legacy=true", {}),
        ("post", "/v1/audio/voices", {"files": keep}),
        ("post", "/v1/audio/voices", {"files": keep}),
        ("post", "/v1/audio/voices", {"files": kept}),
        ("get", "/v1/audio/voices/documented", {}),
        ("get", "/v1/audio/voices/documented?format=json", {}),
        ("get", "/v1/audio/voices/nobody", {}),
        ("delete", "/v1/audio/voices/documented", {}),
        ("post", "/v1/audio/voices/combine", {"json": {"expression": "anna + ben", "name": "both"}}),
        ("delete", "/v1/audio/voices/both", {}),
        ("post", "/v1/audio/voices/search", {"json": {"voice": "anna", "lowest": True}}),
        ("patch", "/v1/audio/voices/kept", {"json": {"consent": "given", "attributes": {"mood": "calm"}}}),
        ("patch", "/v1/audio/voices/kept", {"json": {"consent": "perhaps"}}),
        ("patch", "/v1/audio/voices/nobody", {"json": {}}),
        ("post", "/v1/audio/voices/map", {"json": {}}),
        ("post", "/v1/audio/voices/map", {"json": {"x": "@nothing", "y": "@nothing"}}),
        ("post", "/v1/audio/voices/export", {"json": {"voices": ["nobody"]}}),
        ("post", "/v1/audio/voices/import", {"files": {"archive": ("a.zip", zipped)}}),
        ("post", "/v1/audio/voices/import", {"files": {"archive": ("a.zip", zipped)}}),
        ("post", "/v1/audio/voices/import", {"files": {"archive": ("a.zip", b"no")}}),
        ("delete", "/v1/audio/voices/imported", {}),
        ("delete", "/v1/audio/voices/kept", {}),
        ("get", "/v1/audio/directions", {}),
        ("post", "/v1/audio/directions", {"json": {"labels": {}}}),
        ("delete", "/v1/audio/directions/nothing", {}),
        ("post", "/v1/audio/speech/nothing/steer", {"json": {"voice": "anna"}}),
        ("post", "/v1/audio/expressions", {"json": {"expression": "anna*0.5 + (ben + cleo)"}}),
        ("post", "/v1/audio/expressions", {"json": {"expression": "anna + "}}),
        ("post", "/v1/audio/expressions", {"json": {}}),
        ("post", "/v1/audio/scripts", {"json": {"input": "Hi.\n\nBEN: [rate: 2] Hello 5.", "voices": {"BEN": "ben"}}}),
        ("post", "/v1/audio/scripts", {"json": {"input": "[pause: 1s"}}),
        ("post", "/v1/audio/scripts", {"json": {}}),
        ("post", "/v1/audio/scripts/speech", {"json": {"input": "CARL: Hi."}}),
        ("post", "/v1/embeddings/voice", {"files": {"file": ("a.wav", sound)}}),
        ("post", "/v1/audio/speech", {"json": {}}),
        ("post", "/v1/audio/speech", {"content": "{}"}),
        ("post", "/v1/audio/speech/batch", {"json": {"items": [short, {"input": ""}]}}),
    ]


@pytest.mark.filterwarnings("ignore:library .* has")
def test_answers_are_as_it_says(client, tmp_path):
    seen = set()
    for method, address, how in calls(tmp_path):
        answer = client.request(method, address, **how)
        path = address.partition("?")[0]
        if path.endswith("/steer"):
            path = "/v1/audio/speech/{id}/steer"
        if path not in DOCUMENT["paths"]:
            path = f"{path.rpartition('/')[0]}/{{name}}"
        response = DOCUMENT["paths"][path][method]["responses"].get(str(answer.status_code))
        assert response, (method, address, answer.status_code, answer.text)
        schema = {"components": DOCUMENT["components"]}
        if "$ref" in response:
            schema |= {"$ref": "#/components/schemas/Error"}
        else:
            schema |= response["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), schema)
        seen.add(answer.status_code)
    assert seen == {200, 400, 404, 409, 415}
