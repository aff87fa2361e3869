"""Secrets as certificates: what the data plane will take, and what is said of the rest."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fairlead.ingress.certificates import CertificateBook, refusal, self_signed
from tests.contract.ingress_lab import certificate

PEM = certificate("a.test")
_END = PEM.index("-----BEGIN PRIVATE")
CHAIN, KEY = PEM[:_END], PEM[_END:]


def _key(password: bytes = b"") -> str:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how).decode()


def secret(name: str, **data: str) -> dict[str, Any]:
    """A Secret; underscores in names are dots."""
    encoded = {key.replace("_", "."): base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return {"metadata": {"namespace": "shop", "name": name}, "data": encoded}


def _read(found: dict[str, Any]) -> tuple[str, str]:
    book = CertificateBook()
    book.take(found, gone=False)
    return book.pem_of("shop", found["metadata"]["name"])


def test_a_good_one() -> None:
    """Chain and key in one text without empty lines, which would end a command."""
    pem, why = _read(secret("s", tls_crt=f"{CHAIN}\n\n", tls_key=f"\n{KEY}"))
    assert why == "" and "\n\n" not in pem and pem.count("BEGIN") == 2


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (secret("s", tls_crt=CHAIN), "has no tls.key"),
        (secret("s"), "has no tls.crt and tls.key"),
        (secret("s", tls_crt="no", tls_key="none"), "holds no certificate and key that can be used"),
        (secret("s", tls_crt=CHAIN, tls_key=_key()), "has a key that is not the certificate's"),
        (secret("s", tls_crt=CHAIN, tls_key=_key(b"secret")), "the key is encrypted"),
        (secret("s", tls_crt=CHAIN[:200] + CHAIN[260:], tls_key=KEY), "can be used"),
    ],
)
def test_bad_ones(found: dict[str, Any], why: str) -> None:
    """Each says what is wrong with it."""
    pem, said = _read(found)
    assert pem == "" and why in said


def test_weak_keys_are_refused_as_haproxy_would() -> None:
    """By the TLS library's own policy."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    text = weak.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert refusal(CHAIN + text)


def test_what_matters() -> None:
    """Only Secrets that somebody asked for, and only what is read of them."""
    book = CertificateBook()
    good = secret("s", tls_crt=CHAIN, tls_key=KEY)
    assert not book.take(good, gone=False)
    assert book.pem_of("shop", "t") == ("", "is not there")
    assert book.pem_of("shop", "s")[0]
    assert not book.take({**good, "data": {**good["data"], "other": "eA=="}}, gone=False)
    assert book.take(secret("t", tls_crt=CHAIN, tls_key=KEY), gone=False)
    assert book.take(good, gone=True)
    book.prune()
    assert book.pem_of("shop", "s") == ("", "is not there")


def test_the_one_that_is_shown_when_no_other_fits() -> None:
    """It can be used, too."""
    assert refusal(self_signed("nobody")) == ""
