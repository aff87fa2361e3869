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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

Object = dict[str, Any]

DEFAULT = "default"


class Known(msgspec.Struct, frozen=True):
    """What is known of a Secret: its PEM, or why there is none."""

    pem: str = ""
    why: str = ""


class CertificateBook:
    """The Secrets that are followed. Only what could be a certificate is kept of them."""

    def __init__(self) -> None:
        self._secrets: dict[tuple[str, str], tuple[str, str]] = {}
        self._tried: dict[tuple[str, str], Known] = {}
        self._asked: set[tuple[str, str]] = set()

    def take(self, secret: Object, gone: bool) -> bool:
        """A Secret came, changed or went. Returns whether that matters to who asked for it before."""
        metadata = secret["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        data: Mapping[str, str] = secret.get("data") or {}
        parts = (data.get("tls.crt") or "", data.get("tls.key") or "")
        before = self._secrets.get(key)
        if gone:
            self._secrets.pop(key, None)
        else:
            self._secrets[key] = parts
        return key in self._asked and (before is None or gone or before != parts)

    def pem_of(self, namespace: str, name: str) -> tuple[str, str]:
        """Chain and key in PEM, or empty and why not."""
        self._asked.add((namespace, name))
        parts = self._secrets.get((namespace, name))
        if parts is None:
            return "", "is not there"
        known = self._tried.get(parts)
        if known is None:
            known = self._tried[parts] = _try(*parts)
        return known.pem, known.why

    def prune(self) -> None:
        """Forget certificates that no Secret holds any more."""
        held = set(self._secrets.values())
        self._tried = {parts: known for parts, known in self._tried.items() if parts in held}


class AuthorityBook:
    """The ConfigMaps that hold authorities, in PEM under `ca.crt`. Nothing else of ConfigMaps is kept."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], str] = {}
        self._asked: set[tuple[str, str]] = set()

    def take(self, configmap: Object, gone: bool) -> bool:
        """A ConfigMap came, changed or went. Returns whether that matters to who asked for it before."""
        metadata = configmap["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        before = self._texts.pop(key, None)
        text = None if gone else _text_of(configmap)
        if text is not None:
            self._texts[key] = text
        return key in self._asked and before != text

    def pem_of(self, namespace: str, name: str) -> tuple[str, str]:
        """The authorities in PEM, or empty and why not."""
        self._asked.add((namespace, name))
        text = self._texts.get((namespace, name))
        if text is None:
            return "", "is not there, or has no ca.crt"
        pem = "\n".join(line.strip() for line in text.splitlines() if line.strip()) + "\n"
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
        except (ssl.SSLError, ValueError) as error:
            reason = (getattr(error, "reason", None) or "no certificate").replace("_", " ").lower()
            return "", f"holds no certificates that can be used in ca.crt ({reason})"
        return pem, ""


def _text_of(configmap: Object) -> str | None:
    text = (configmap.get("data") or {}).get("ca.crt")
    binary = (configmap.get("binaryData") or {}).get("ca.crt")
    if text is not None or binary is None:
        return text
    try:
        return base64.b64decode(binary).decode("latin-1")
    except binascii.Error:
        return ""


def _try(certificate: str, key: str) -> Known:
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
