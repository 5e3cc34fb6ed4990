"""Certificates to sign with: the user's, read from PEM, and one of this program's own.

C2PA takes no certificate that has signed itself (c2pa-rs, issue 336). So what is made here is a root that nobody else
knows, thrown away once it has issued one certificate. Whoever checks sees a chain that ends at nobody: self-signed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidValue

OURS = "mlx_qwen3tts, self-signed"  # the organisation in certificates that are made here
NAME = "identity not verified"
YEARS = 10
KEYS = "C2PA takes keys of RSA, Ed25519 and the curves P-256, P-384 and P-521"
C2PA_SIGNING = "1.3.6.1.4.1.62558.2.1"  # the extended key usage for claims of C2PA


@dataclass(frozen=True, repr=False)
class Identity:
    """certificates: PEM, the signer's first; key: its private key as PKCS#8 PEM; algorithm: as C2PA calls it; name: for
    messages."""

    certificates: bytes
    key: bytes
    algorithm: str
    name: str


def read_identity(certificate: Path, key: Path) -> Identity:
    """The Identity of two PEM files, which may be the same. InvalidValue for what is not one, or does not fit."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    told, secret = _read(certificate, "sign_certificate"), _read(key, "sign_key")
    try:
        chain = x509.load_pem_x509_certificates(told)
    except ValueError:  # whose words are for programmers
        message = f"{certificate} has no certificate in PEM, or one that is damaged"
        raise InvalidValue(message, param="sign_certificate") from None
    try:
        private = serialization.load_pem_private_key(secret, password=None)
    except TypeError:
        message = f"{key} is locked with a password; openssl pkey -in {key} -out OPEN writes it without one"
        raise InvalidValue(message, param="sign_key") from None
    except ValueError:
        raise InvalidValue(f"{key} has no private key in PEM, or one that is damaged", param="sign_key") from None
    except UnsupportedAlgorithm:
        raise InvalidValue(f"{key}: {KEYS}", param="sign_key") from None
    first, form = chain[0], (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        public = first.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidValue(f"{certificate}: {KEYS}", param="sign_certificate") from None
    if public.public_bytes(*form) != private.public_key().public_bytes(*form):
        raise InvalidValue(f"{key} is not the key of the certificate {certificate}", param="sign_key")
    now = datetime.datetime.now(datetime.timezone.utc)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        until = f"{first.not_valid_before_utc:%Y-%m-%d} to {first.not_valid_after_utc:%Y-%m-%d}"
        raise InvalidValue(f"{certificate} is valid from {until} alone", param="sign_certificate")
    pem = serialization.Encoding.PEM
    return Identity(
        b"".join(one.public_bytes(pem) for one in chain),
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        _algorithm(private, key),
        str(certificate),
    )


def _read(path: Path, param: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"cannot read {path}: {error.strerror or error}", param=param) from None


def _algorithm(private: Any, key: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in curves:
        return curves[private.curve.name]
    raise InvalidValue(f"{key}: {KEYS}", param="sign_key")


def make_identity() -> bytes:
    """A new private key and a certificate for it, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)  # for clocks that are slow

    def name(common: str) -> x509.Name:
        parts = ((NameOID.ORGANIZATION_NAME, OURS), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(*part) for part in parts])

    encipher = ("key_encipherment", "data_encipherment", "encipher_only", "decipher_only")
    usage = dict.fromkeys((*encipher, "content_commitment", "key_agreement", "key_cert_sign", "crl_sign"), False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name(NAME))
        .issuer_name(name("a root that nobody knows"))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION, x509.ObjectIdentifier(C2PA_SIGNING)]), False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
        .sign(root, hashes.SHA256())
    )
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key + certificate.public_bytes(serialization.Encoding.PEM)
