"""Errors as OpenAI's clients read them: {"error": {message, type, param, code}}."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from ..errors import QwenTTSError
from ..files.json_text import json_text
from .jobs import Busy

# By code: what is not here is 400. SDKs try again after 408, 409, 429 and from 500 on, so a bad request is never one.
STATUS = {
    "not_authorized": 401,
    "origin_not_allowed": 403,
    "model_not_found": 404,
    "not_found": 404,
    "too_slow": 408,
    "name_taken": 409,
    "payload_too_large": 413,
    "media_type": 415,
    "host_not_allowed": 421,
    "head_too_large": 431,
    "queue_full": 429,
    "busy": 503,
}
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}
# Our names of arguments, where a client calls them otherwise.
FIELDS = {"text": "input", "instruct": "instructions", "max_tokens": "max_new_tokens", "morph": "morph_to"}


LONGEST_MESSAGE = 600  # characters


class Refusal(QwenTTSError):
    """What a server refuses that the package knows nothing of."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code  # pyright: ignore[reportIncompatibleUnannotatedOverride]  (of this one alone)


def status_of(error: Exception) -> int:
    """The status of an error by its code; 500 for a fault of ours."""
    return STATUS.get(error.code, 400) if isinstance(error, QwenTTSError) else 500


def error_body(error: Exception, status: int) -> dict[str, dict[str, str | None]]:
    """The body of an error. What is a fault of ours says no more than that."""
    if not isinstance(error, QwenTTSError):
        message, code, param = "a fault of the server; its log says more", "server_error", None
    else:
        message, code, param = " ".join(str(error).split()), error.code, error.param
        if pointer := getattr(error, "pointer", None):
            message = f"{message}\n{pointer}"
        if len(message) > LONGEST_MESSAGE:  # it quotes what was sent
            message = f"{message[: LONGEST_MESSAGE - 1]}…"
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": FIELDS.get(param or "", param), "code": code}}


def error_response(error: Exception, status: int | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """The response to an error; status: where the code does not decide it."""
    if status is None:
        status = status_of(error)
    more = dict(headers or {})
    if isinstance(error, Busy):
        more["retry-after"] = str(error.retry_after)
    if status in (408, 413):
        more["connection"] = "close"  # the rest of the body is not wanted
    if status == 409:
        more["x-should-retry"] = "false"  # the official clients would, as a conflict may pass; a taken name does not
    # In ASCII, as a message may quote what UTF-8 has no bytes for.
    body = json_text(error_body(error, status), separators=(",", ":"))
    return Response(body, status, more, "application/json")
