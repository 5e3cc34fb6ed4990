"""Signed statements that a file is synthetic: C2PA manifests (the extra c2pa).

A manifest lies in the file. It says that a trained model has made the sound, and with which program, model and voices,
and its signature covers the file's bytes: who changes one of them breaks it. Who takes the manifest out leaves a file
without a signature, which says nothing.

The certificate is the user's, or one that this program makes for itself. The latter is self-signed: it shows that the
file has not been changed since, and does not show who signed it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import __version__
from ..audio.tags import id3_size
from ..audio.writing import wav_head
from ..errors import AudioError, InvalidValue, MissingExtra, OutputError, UnsupportedValue, install_hint
from ..files.configuration import folder
from ..files.json_text import json_text
from .certificate import OURS, Identity, make_identity, read_identity
from .origin import SOURCE
from .seal import SIGNED

if TYPE_CHECKING:
    from .origin import Origin

TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "m4b": "audio/mp4"}
LABEL = "org.mlx_qwen3tts.origin"  # of the assertion that has what tags have
# What a check of the bytes found, as C2PA calls it, in a few words.
BROKEN = {
    "assertion.dataHash.mismatch": "the file was changed after it was signed",
    "assertion.bmffHash.mismatch": "the file was changed after it was signed",
    "claimSignature.mismatch": "the manifest was changed after it was signed",
    "assertion.hashedURI.mismatch": "the manifest was changed after it was signed",
}
UNTRUSTED = "signingCredential.untrusted"


def library() -> Any:
    """The module c2pa; MissingExtra where it, or what makes certificates, is not installed."""
    try:
        importlib.import_module("cryptography")
        return importlib.import_module("c2pa")
    except ModuleNotFoundError as error:
        raise MissingExtra(f"signatures need {error.name}: {install_hint('c2pa')}", param="sign") from None


def check_signable(output: str | None) -> None:
    """UnsupportedValue for a file whose format cannot hold a signature; None and folders are of WAVs, stdout is one."""
    suffix = "" if output in (None, "-") else Path(str(output)).suffix.lower()
    if suffix and suffix[1:] not in SIGNED:
        known = " ".join(f".{kind}" for kind in SIGNED)
        raise UnsupportedValue(f"{output}: {suffix} cannot hold a signature; --sign takes {known}", param="sign")


@dataclass(frozen=True, repr=False)
class Signer:
    """Signs files with an identity. Make one with `open`."""

    identity: Identity

    @classmethod
    def open(cls, certificate: str | Path | None = None, key: str | Path | None = None) -> Signer:
        """A Signer with the certificate and the private key of PEM files, or with an identity of this program's own,
        which is made where there is none yet and kept beside the configuration.

        MissingExtra without the extra c2pa; InvalidValue for a certificate that does not fit its key or cannot sign.
        """
        library()
        if (certificate is None) != (key is None):
            one, other = ("certificate", "key") if key is None else ("key", "certificate")
            raise InvalidValue(f"--sign-{one} needs --sign-{other} too", param=f"sign_{other}")
        if certificate is None or key is None:
            signer = cls(own_identity(folder() / OWN))
        else:
            signer = cls(read_identity(Path(certificate), Path(key)))
        signer.signed(wav_head(24000, 0), "wav", None)  # what is wrong with a certificate, nobody says before
        return signer

    def signed(self, data: bytes, kind: str, origin: Origin | None) -> bytes:
        """The bytes of a file of a format of SIGNED with a signature."""
        made = io.BytesIO()
        self._sign(io.BytesIO(data), made, kind, origin)
        return made.getvalue()

    def sign(self, path: Path, kind: str, origin: Origin | None) -> None:
        """Sign a file of a format of SIGNED where it lies."""
        with open(path, "r+b") as file, tempfile.TemporaryFile(dir=path.parent) as made:
            self._sign(file, made, kind, origin)
            made.seek(0)
            file.seek(0)
            shutil.copyfileobj(made, file)
            file.truncate()

    def _sign(self, source: IO[bytes], made: IO[bytes], kind: str, origin: Origin | None) -> None:
        c2pa = library()
        who = self.identity
        info = c2pa.C2paSignerInfo(
            alg=who.algorithm.encode(), sign_cert=who.certificates, private_key=who.key, ta_url=None
        )
        try:
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json_text(manifest(origin))) as builder:
                builder.sign(signer, TYPES[kind], source, made)
        except c2pa.C2paError as error:
            raise InvalidValue(f"the file cannot be signed with {who.name}: {error}", param="sign") from None


OWN = "signing.pem"
ANEW = "move it away, and a new one is made"


def manifest(origin: Origin | None) -> dict[str, Any]:
    """The manifest of a file, as c2pa's Builder takes it."""
    created = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE,
        "softwareAgent": {"name": "mlx_qwen3tts", "version": __version__},
    }
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions", "data": {"actions": [created]}}]
    if origin is not None:
        told = {**origin.as_dict(), "text": None}
        assertions.append({"label": LABEL, "data": _given(told)})
    generator = [{"name": "mlx_qwen3tts", "version": __version__}]
    return {"claim_generator_info": generator, "title": "Synthetic speech", "assertions": assertions}


def _given(value: Any) -> Any:
    """JSON-like values without what is None."""
    if isinstance(value, dict):
        return {name: _given(part) for name, part in value.items() if part is not None}
    return [_given(part) for part in value] if isinstance(value, list | tuple) else value


def own_identity(place: Path) -> Identity:
    """The identity that this program keeps, made now where there is none. Only its user can read it.

    InvalidValue for what lies there and cannot sign, OutputError where nothing can be kept.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.path.lexists(place):
            descriptor, name = tempfile.mkstemp(dir=place.parent)  # with mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(make_identity())
                with contextlib.suppress(FileExistsError):  # another process was faster, and its own counts
                    os.link(name, place)
            finally:
                os.unlink(name)
        if not place.is_file():  # a pipe would be waited for
            raise InvalidValue(f"{place} is not a regular file; {ANEW}", param="sign")
        if place.stat().st_mode & 0o077:
            raise InvalidValue(f"{place} has a private key that others can read; chmod 600 it", param="sign")
    except FileExistsError:
        raise OutputError(f"cannot keep a certificate in {place}: {place.parent} is not a folder") from None
    except OSError as error:
        raise OutputError(f"cannot keep a certificate in {place}: {error.strerror or error}") from None
    try:
        return read_identity(place, place)
    except InvalidValue as error:
        raise InvalidValue(f"{error}; {ANEW}", param="sign") from None


def read_signature(path: str | Path) -> dict[str, Any] | None:
    """What is signed of a sound file: {"state": "valid" or "invalid", "self_signed", "issuer", "name", "synthetic",
    "summary", "lines": for people, "problems": C2PA's words}; None where nothing is. Without the extra c2pa the state
    is "unchecked"."""
    kind = _kind(path)
    if kind is None:
        return None
    try:
        c2pa = library()
    except MissingExtra as error:
        return {"state": "unchecked", "summary": f"not checked: {error}"}
    settings = c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
    try:
        with (
            open(path, "rb") as file,
            c2pa.Context(settings) as context,
            c2pa.Reader(TYPES[kind], file, context=context) as reader,
        ):
            return _told(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return {"state": "invalid", "summary": f"invalid: {error}", "problems": [str(error)]}
    except OSError as error:
        raise AudioError(f"audio {path}: cannot be read: {error.strerror or error}") from None


def _kind(path: str | Path) -> str | None:
    """The format of SIGNED that a file is, by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            file.seek(id3_size(head))
            flac = file.read(4) == b"fLaC"
    except OSError as error:
        raise AudioError(f"audio {path}: cannot be read: {error.strerror or error}") from None
    if head[:4] == b"RIFF":
        return "wav"
    if flac:
        return "flac"
    if head[4:8] == b"ftyp":
        return "m4b"
    mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06
    return "mp3" if head[:3] == b"ID3" or mpeg else None


def _told(store: dict[str, Any]) -> dict[str, Any]:
    """What a manifest store says, and whether it holds."""
    active = store["manifests"].get(store.get("active_manifest"), {})  # which is not there where it is damaged
    problems = [one["code"] for one in store.get("validation_status", []) if one["code"] != UNTRUSTED]
    valid = bool(active) and store.get("validation_state") in ("Valid", "Trusted") and not problems
    signed = active.get("signature_info", {})
    issuer, name = signed.get("issuer") or "nobody named", signed.get("common_name")
    own = issuer == OURS
    actions = [
        action
        for assertion in active.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"].get("actions", [])
    ]
    kinds = [action["digitalSourceType"] for action in actions if "digitalSourceType" in action]
    if valid:
        summary = "valid, self-signed: the file is unchanged since it was signed; who signed it is not verified"
        if not own:
            trusted = store.get("validation_state") == "Trusted"
            whose = "" if trusted else ", whose certificate was not checked against any list"
            summary = f"valid, by {issuer}{f' ({name})' if name else ''}{whose}"
    else:
        why = next((BROKEN[code] for code in problems if code in BROKEN), ", ".join(problems) or "it does not hold")
        summary = f"invalid: {why}{' (self-signed)' if own else ''}"
    lines = [
        f"made by: {one.get('name', '?')} {one.get('version', '')}".rstrip()
        for one in active.get("claim_generator_info", [])
    ]
    lines += [f"source: {kind}" for kind in kinds]
    return {
        "state": "valid" if valid else "invalid",
        "self_signed": own,
        "issuer": issuer,
        "name": name,
        "synthetic": SOURCE in kinds,
        "summary": summary,
        "lines": lines,
        "problems": problems,
    }
