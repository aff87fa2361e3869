"""Secrets of type kubernetes.io/tls, and authorities in ConfigMaps → certificates that the data plane will take.

Certificates are tried with the TLS library before HAProxy sees them, so that one that is broken concerns its author
alone. Invariant: what passes here, `haproxy -c` passes.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

Object = dict[str, Any]
Parts = TypeVar("Parts")

DEFAULT = "default"


class Known(msgspec.Struct, frozen=True):
    """What is known of an object: its PEM, or why there is none."""

    pem: str = ""
    why: str = ""


class _Book(Generic[Parts]):
    """Objects that are followed. Only what could be used is kept of them, as `read` finds it; it is tried once, when
    somebody asks for it."""

    def __init__(self, read: Callable[[Object], Parts | None], attempt: Callable[[Parts], Known], missing: str) -> None:
        self._read, self._attempt, self._missing = read, attempt, missing
        self._parts: dict[tuple[str, str], Parts] = {}
        self._tried: dict[Parts, Known] = {}
        self._asked: set[tuple[str, str]] = set()

    def take(self, obj: Object, gone: bool) -> bool:
        """An object came, changed or went. Returns whether that matters to who asked for it before."""
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        before = self._parts.pop(key, None)
        parts = None if gone else self._read(obj)
        if parts is not None:
            self._parts[key] = parts
        return key in self._asked and before != parts

    def pem_of(self, namespace: str, name: str) -> tuple[str, str]:
        """What it holds in PEM, or empty and why not."""
        self._asked.add((namespace, name))
        parts = self._parts.get((namespace, name))
        if parts is None:
            return "", self._missing
        known = self._tried.get(parts)
        if known is None:
            known = self._tried[parts] = self._attempt(parts)
        return known.pem, known.why

    def prune(self) -> None:
        """Forget what no object holds any more."""
        held = set(self._parts.values())
        self._tried = {parts: known for parts, known in self._tried.items() if parts in held}


class CertificateBook(_Book[tuple[str, str]]):
    """The Secrets: chain and key."""

    def __init__(self) -> None:
        super().__init__(_parts_of, _try, "is not there")


class AuthorityBook(_Book[str]):
    """The ConfigMaps that hold authorities, in PEM under `ca.crt`."""

    def __init__(self) -> None:
        super().__init__(_text_of, _try_authorities, "is not there, or has no ca.crt")


def _parts_of(secret: Object) -> tuple[str, str]:
    data: Mapping[str, str] = secret.get("data") or {}
    return data.get("tls.crt") or "", data.get("tls.key") or ""


def _text_of(configmap: Object) -> str | None:
    text = (configmap.get("data") or {}).get("ca.crt")
    binary = (configmap.get("binaryData") or {}).get("ca.crt")
    if text is not None or binary is None:
        return text
    try:
        return base64.b64decode(binary).decode("latin-1")
    except binascii.Error:
        return ""


def _try_authorities(text: str) -> Known:
    pem = "\n".join(line.strip() for line in text.splitlines() if line.strip()) + "\n"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        reason = (getattr(error, "reason", None) or "no certificate").replace("_", " ").lower()
        return Known(why=f"holds no certificates that can be used in ca.crt ({reason})")
    return Known(pem)


def _try(parts: tuple[str, str]) -> Known:
    certificate, key = parts
    if not certificate or not key:
        missing = " and ".join(name for name, part in (("tls.crt", certificate), ("tls.key", key)) if not part)
        return Known(why=f"has no {missing}")
    try:
        chain, secret = (base64.b64decode(part, validate=True).decode("ascii") for part in (certificate, key))
    except (binascii.Error, UnicodeDecodeError):
        return Known(why="holds no PEM in tls.crt and tls.key")
    pem = "\n".join(line for text in (chain, secret) for line in text.splitlines() if line.strip()) + "\n"
    why = refusal(pem)
    return Known(why=why) if why else Known(pem)


def refusal(pem: str) -> str:
    """Why the TLS library does not take this chain and key; empty if it does."""
    descriptor = os.memfd_create("certificate")
    try:
        path = f"/proc/self/fd/{descriptor}"
        Path(path).write_text(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower()
        if reason == "key values mismatch":
            return "has a key that is not the certificate's"
        return f"holds no certificate and key that can be used ({reason or 'no PEM'})"
    except (OSError, ValueError) as error:
        return f"holds no certificate and key that can be used ({error})"
    finally:
        os.close(descriptor)
    return ""


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def self_signed(name: str) -> str:
    """A certificate that says it is none, for clients whose server name nobody has one for. In PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("ingress.invalid")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (certificate.public_bytes(serialization.Encoding.PEM) + secret).decode()
