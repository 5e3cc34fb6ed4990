"""Signatures: a manifest that other programs check, certificates that fit or do not, and files that were changed."""

import datetime
import json
import os
import re
import ssl
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from convert.parity import vector
from mlx_qwen3tts.audio.encoding import libav
from mlx_qwen3tts.audio.long import write_long
from mlx_qwen3tts.audio.tag_reading import read_tags
from mlx_qwen3tts.audio.writing import write_audio
from mlx_qwen3tts.errors import InvalidValue, MissingExtra, OutputError, UnsupportedValue
from mlx_qwen3tts.provenance.origin import Credit, Origin
from mlx_qwen3tts.provenance.seal import SIGNED, Seal
from mlx_qwen3tts.provenance.signature import Signer, check_signable, read_signature
from mlx_qwen3tts.server.speaking import Flow

pytest.importorskip("c2pa")

RATE = 24000
ORIGIN = Origin("miniature", (Credit("anna", consent="given"),), 1, "Secret.")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A configuration folder of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "mlx_qwen3tts" / "signing.pem"


@pytest.fixture
def sound():
    return np.random.default_rng(1).uniform(-0.3, 0.3, RATE).astype(np.float32)


def issued(tmp_path, name="me", key=None, days=30, **changes):
    """(certificate, key) files of a chain of its own, as a user may have one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root, own = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP384R1())
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=20)
    flags = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    usage = dict.fromkeys((*flags, "crl_sign", "encipher_only", "decipher_only"), False)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Root")]))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
    )
    if changes.get("usage", True):
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    certificate, private = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
    certificate.write_bytes(made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    password = changes.get("password")
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(own.private_bytes(*form, lock))
    return certificate, private


def strange_curve(certificate):
    """A certificate in PEM for a key of a curve that nobody knows: the number of P-384 is changed."""
    p_384, unknown = bytes.fromhex("06052b81040022"), bytes.fromhex("06052b81040062")
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(certificate).replace(p_384, unknown))


@pytest.mark.parametrize("kind", SIGNED)
def test_a_file_is_signed_and_checked(sound, tmp_path, kind):
    signer, path = Signer.open(), tmp_path / f"a.{kind}"
    tags = ORIGIN.tags()
    if kind == "m4b" and libav() is None:
        pytest.skip("m4b needs av")
    write_long(path, [sound], RATE, sound.size, tags=tags, sign=Seal(signer=signer).signing_file(ORIGIN))
    plain = tmp_path / f"plain.{kind}"
    write_long(plain, [sound], RATE, sound.size, tags=tags)
    found = read_signature(path)
    assert (found["state"], found["self_signed"], found["synthetic"]) == ("valid", True, True), found
    assert "self-signed" in found["summary"] and b"Secret" not in path.read_bytes()
    assert read_tags(path)["comment"] == tags.comment and read_signature(plain) is None
    if kind != "m4b":
        np.testing.assert_array_equal(soundfile.read(path)[0], soundfile.read(plain)[0])
        write_audio(path, sound, RATE, tags=tags, sign=Seal(signer=signer).signing(ORIGIN))
        assert read_signature(path)["state"] == "valid"


def test_the_servers_whole_answers(sound, tmp_path):
    for kind, signed in (("wav", True), ("mp3", True), ("flac", True), ("opus", False), ("pcm", False)):
        data = Flow(kind, RATE, seal=Seal(signer=Signer.open())).whole(sound, ORIGIN)
        (tmp_path / kind).write_bytes(data)
        found = read_signature(tmp_path / kind)
        assert (found["state"] == "valid") if signed else found is None


def test_a_changed_file_is_found_out(sound, tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, sound, RATE, sign=Seal(signer=Signer.open()).signing(None))
    data = bytearray(path.read_bytes())
    data[data.index(b"data") + 1000] ^= 1
    path.write_bytes(data)
    found = read_signature(path)
    assert found["state"] == "invalid" and "the file was changed after it was signed" in found["summary"]
    cut = tmp_path / "cut.wav"
    write_audio(cut, soundfile.read(path, dtype="float32")[0], RATE)
    assert read_signature(cut) is None, "who writes it anew leaves the signature out"


def test_a_damaged_manifest_is_invalid(sound, tmp_path):
    """Wherever it is damaged: where its own assertion is, c2pa names an active manifest that it does not have."""
    path = tmp_path / "a.wav"
    write_audio(path, sound, RATE, sign=Seal(signer=Signer.open()).signing(ORIGIN))
    data = path.read_bytes()
    start = data.index(b"anna") - 40
    found = []
    for place in range(start, start + 40, 2):
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        found.append(read_signature(path))
    assert all(one["state"] == "invalid" and one["summary"].startswith("invalid: ") for one in found)
    assert any(one.get("issuer") == "nobody named" for one in found), "one that has no manifest any more"


def test_the_own_key_is_kept_and_private(home, tmp_path):
    assert not home.exists()
    first = Signer.open().identity
    assert stat.S_IMODE(home.stat().st_mode) == 0o600 and stat.S_IMODE(home.parent.stat().st_mode) == 0o700
    assert Signer.open().identity.key == first.key and [one.name for one in home.parent.iterdir()] == ["signing.pem"]
    home.chmod(0o644)
    with pytest.raises(InvalidValue, match="others can read; chmod 600"):
        Signer.open()


OWN = {
    "nothing": (lambda file, kept: file.write_text(""), "has no certificate in PEM"),
    "something else": (lambda file, kept: file.write_bytes(bytes(range(256))), "has no certificate in PEM"),
    "the key alone": (lambda file, kept: file.write_bytes(kept.partition(b"-----BEGIN CERT")[0]), "has no certificate"),
    "no key": (
        lambda file, kept: file.write_bytes(kept[kept.index(b"-----BEGIN CERT") :]),
        "has no private key in PEM",
    ),
    "a folder": (lambda file, kept: file.mkdir(), "is not a regular file"),
    "a pipe": (lambda file, kept: os.mkfifo(file), "is not a regular file"),
    "a link to nothing": (lambda file, kept: file.symlink_to("nowhere"), "is not a regular file"),
}


@pytest.mark.parametrize("what", OWN)
def test_what_lies_in_the_place_of_the_own_key_and_is_none(home, refused, checkpoint, what):
    Signer.open()
    kept, (put, message) = home.read_bytes(), OWN[what]
    home.unlink()
    put(home, kept)
    if home.is_file():
        home.chmod(0o600)
    with pytest.raises(InvalidValue) as caught:
        Signer.open()
    assert (caught.value.param, caught.value.code) == ("sign", "invalid_value")
    told = refused("generate", "--model", checkpoint("base"), "--sign", "Hello.")
    assert told == str(caught.value) and told.startswith(f"{home} {message}")
    assert told.endswith("; move it away, and a new one is made") and "cryptography" not in told


def test_an_own_key_that_cannot_be_read_or_kept(home, monkeypatch):
    Signer.open()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: raises(PermissionError(13, "Permission denied")))
        with pytest.raises(InvalidValue, match=r"^cannot read .*signing\.pem: Permission denied; move it away"):
            Signer.open()
    home.unlink()
    home.parent.rmdir()
    home.parent.write_text("")
    with pytest.raises(OutputError, match=r"cannot keep a certificate in .*: .*/mlx_qwen3tts is not a folder$"):
        Signer.open()


def raises(error):
    raise error


def test_a_certificate_of_the_users(sound, tmp_path, command):
    certificate, key = issued(tmp_path, "Example Radio")
    signer = Signer.open(certificate, key)
    write_audio(tmp_path / "a.wav", sound, RATE, sign=Seal(signer=signer).signing(ORIGIN))
    found = read_signature(tmp_path / "a.wav")
    assert (found["state"], found["self_signed"]) == ("valid", False) and "Example Radio" in found["summary"]
    assert "was not checked against any list" in found["summary"]


def test_certificates_that_cannot_sign(tmp_path):
    certificate, key = issued(tmp_path)
    _, foreign = issued(tmp_path, "other")
    locked = issued(tmp_path, "locked", password=b"secret")
    old = issued(tmp_path, "old", days=10)
    web = issued(tmp_path, "web", usage=False)
    strange = issued(tmp_path, "strange")
    strange[0].write_text(strange_curve(strange[0].read_text()))
    (tmp_path / "empty.pem").write_text("")
    for given, message in (
        ((certificate, foreign), "is not the key of the certificate"),
        (locked, "is locked with a password"),
        (old, "is valid from .* alone"),
        (web, "cannot be signed with"),
        (strange, "strange.crt: C2PA takes keys of RSA"),
        ((tmp_path / "none.crt", key), "^cannot read .*none.crt: No such file"),
        ((tmp_path, key), "^cannot read .*: Is a directory"),
        ((certificate, tmp_path), "^cannot read .*: Is a directory"),
        ((tmp_path / "empty.pem", key), "has no certificate in PEM"),
        ((certificate, tmp_path / "empty.pem"), "has no private key in PEM"),
        ((certificate, None), "--sign-certificate needs --sign-key too"),
        ((None, key), "--sign-key needs --sign-certificate too"),
    ):
        with pytest.raises(InvalidValue, match=message):
            Signer.open(*given)


def test_without_the_extra(monkeypatch, sound, tmp_path, command, refused, checkpoint):
    write_audio(tmp_path / "a.wav", sound, RATE, sign=Seal(signer=Signer.open()).signing(None))
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtra, match=r"signatures need c2pa: .*\[c2pa\]"):
        Signer.open()
    assert "signatures need c2pa" in refused("generate", "--model", checkpoint("base"), "--sign", "Hello.")
    assert "not checked: signatures need c2pa" in command("mark", "show", "a.wav").out


def test_formats_that_hold_none():
    for output in ("a.ogg", "folder/a.ogg"):
        with pytest.raises(UnsupportedValue, match=r"\.ogg cannot hold a signature; --sign takes \.wav \.mp3"):
            check_signable(output)
    for output in (None, "-", "lines", "a.WAV", "a.m4b"):
        check_signable(output)


def test_commands_sign(command, refused, checkpoint, tmp_path, sound):
    np.save(tmp_path / "v.npy", vector(64, 1))
    model = ("--model", checkpoint("base"))
    base = ("generate", *model, "--embedding", "v.npy", "--max-tokens", "4", "--seed", "1")
    assert command(*base, "Hello.", "--sign").status == 0
    ran = command("mark", "show", "out.wav")
    page = (Path(__file__).parents[2] / "docs" / "provenance.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^  signature: valid, self-signed.*\n", page, re.MULTILINE)
    assert shown in ran.out and "who signed it is not verified" in shown, ran.out
    assert json.loads(command("mark", "show", "out.wav", "--json").out)["files"][0]["signature"]["synthetic"] is True
    (tmp_path / "play.txt").write_text("Hello.")
    render = ("script", "render", "play.txt", *model, "--voice", "v.npy", "--max-tokens", "4", "--sign")
    for output in ("a.mp3", "lines"):
        assert command(*render, "--output", output).status == 0
    assert (
        read_signature(tmp_path / "a.mp3")["state"] == read_signature(tmp_path / "lines/0001.wav")["state"] == "valid"
    )
    for run in (base[:-2], ("script", "render", "play.txt", *model, "--voice", "v.npy")):
        more = ("Hello.",) if run[0] == "generate" else ()
        assert ".ogg cannot hold a signature" in refused(*run, *more, "--sign", "--output", "b.ogg")
    assert "--sign needs the whole sound" in refused(*base, "Hello.", "--sign", "--stream", "--output", "-")
    assert "--sign-key belongs to --sign" in refused(*base, "Hello.", "--sign-key", "x.pem")
    assert "--sign signs a file: give -o too" in refused("say", *model, "--sign", "Hello.")
