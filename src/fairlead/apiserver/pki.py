"""Certificates and keys: the cluster's authority, what it issues, and the key that signs service-account tokens.

Stands beside the server: `cluster` makes everything here at first start and writes it to files (mode 0600, its caller's
duty); the API server reads it back. All keys are EC P-256, so that making one costs well under a millisecond.
Invariant: what `issue` returns verifies against the authority it was issued by, for exactly the named uses, also under
the strict X.509 checks of newer Pythons (key identifiers, key usage, critical basic constraints).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCK_SKEW = timedelta(minutes=5)
"""So long before it was made a certificate is valid: clocks differ."""
AUTHORITY_DAYS = 3650
LEAF = timedelta(days=365)


class BadCredentials(ValueError):
    """A certificate or key can't be read. The message says which, and never holds key material."""


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate and its private key, PEM (the key as unencrypted PKCS#8)."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        """Without the key: a KeyPair may end up in a log."""
        return f"KeyPair({ca_hash(self.cert_pem)})"


def create_authority(cn: str, *, days: int = AUTHORITY_DAYS, now: datetime | None = None) -> KeyPair:
    """A self-signed authority named `cn`, which may issue leaves but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(cn, ())
    start = (now or datetime.now(UTC)) - CLOCK_SKEW
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def issue(
    ca: KeyPair,
    cn: str,
    organizations: Sequence[str] = (),
    dns_names: Sequence[str] = (),
    ips: Sequence[str] = (),
    *,
    client: bool = False,
    server: bool = False,
    lasts: timedelta = LEAF,
    now: datetime | None = None,
) -> KeyPair:
    """A leaf signed by `ca`. As a client, `cn` is the user's name and `organizations` the groups (upstream's rule).

    `client`/`server` are the uses it verifies for; at least one must be given. Never outlives its authority.
    Raises BadCredentials when `ca` can't be read or holds no usable key, ValueError when an address isn't one.
    """
    if not (client or server):
        raise ValueError("a certificate needs a use: client, server or both")
    key = ec.generate_private_key(ec.SECP256R1())
    asked = Requested(cn, tuple(organizations), tuple(dns_names), tuple(ips), (), key.public_key())
    return KeyPair(sign_request(ca, asked, client=client, server=server, lasts=lasts, now=now), _key_pem(key))


class Requested(msgspec.Struct, frozen=True):
    """What a certificate is asked for. `others` are alternative names that are neither DNS names nor addresses."""

    cn: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    ips: tuple[str, ...]
    others: tuple[str, ...]
    public_key: Any


def create_request(
    cn: str, organizations: Sequence[str] = (), dns_names: Sequence[str] = (), ips: Sequence[str] = ()
) -> tuple[bytes, bytes]:
    """A new key and the certificate signing request for it, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(cn, organizations))
    if names := _alternatives(dns_names, ips):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _key_pem(key), builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def lifetime(cert_pem: bytes) -> tuple[datetime, datetime]:
    """From when until when the certificate is valid (UTC). Raises BadCredentials."""
    certificate = _certificate(cert_pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def read_request(pem: bytes) -> Requested:
    """A certificate signing request (PKCS#10, PEM). Raises BadCredentials if it can't be read or is not signed by the
    key it names."""
    try:
        request = x509.load_pem_x509_csr(pem)
        valid = request.is_signature_valid
        found = [e.value for e in request.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    except (ValueError, x509.ExtensionNotFound):
        raise BadCredentials("the certificate signing request is not readable PEM") from None
    if not valid:
        raise BadCredentials("the certificate signing request is not signed by its own key")
    names = [name for alternative in found for name in alternative]
    subject = request.subject
    common = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return Requested(
        common[0] if common else "",
        tuple(str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
        tuple(name.value for name in names if isinstance(name, x509.DNSName)),
        tuple(str(name.value) for name in names if isinstance(name, x509.IPAddress)),
        tuple(str(name.value) for name in names if not isinstance(name, x509.DNSName | x509.IPAddress)),
        request.public_key(),
    )


def sign_request(
    ca: KeyPair, asked: Requested, *, client: bool, server: bool, lasts: timedelta, now: datetime | None = None
) -> bytes:
    """The certificate (PEM) that was asked for, signed by `ca`, for those uses. As `issue`; whether it may be had is
    the caller's to decide."""
    issuer, issuer_key = _load(ca)
    start = (now or datetime.now(UTC)) - CLOCK_SKEW
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH] * client + [ExtendedKeyUsageOID.SERVER_AUTH] * server
    identifier = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(asked.cn, asked.organizations))
        .issuer_name(issuer.subject)
        .public_key(asked.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(min(start + CLOCK_SKEW + lasts, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(asked.public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    if names := _alternatives(asked.dns_names, asked.ips):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def create_signing_key() -> bytes:
    """A private key (PEM) for signing service-account tokens with ES256."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def public_key_of(private_pem: bytes) -> bytes:
    """The public half (PEM) of a private key: what tokens are verified with. Raises BadCredentials."""
    try:
        key = serialization.load_pem_private_key(private_pem, password=None)
    except (ValueError, TypeError):
        raise BadCredentials("the private key is not readable PEM") from None
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def ca_hash(cert_pem: bytes) -> str:
    """`sha256:<hex>` over the certificate's public key, as kubeadm's --discovery-token-ca-cert-hash takes it."""
    return "sha256:" + hashlib.sha256(_public_key_der(_certificate(cert_pem))).hexdigest()


def expires(cert_pem: bytes) -> datetime:
    """The moment the certificate stops being valid (UTC). Raises BadCredentials."""
    return _certificate(cert_pem).not_valid_after_utc


def subject_of(cert_pem: bytes) -> tuple[str, tuple[str, ...]]:
    """The subject's common name and organizations: who a client certificate says it is. Raises BadCredentials."""
    subject = _certificate(cert_pem).subject
    names = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    organizations = tuple(str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return (names[0] if names else "", organizations)


def hosts_of(cert_pem: bytes) -> frozenset[str]:
    """The DNS names and addresses the certificate is for. Raises BadCredentials."""
    certificate = _certificate(cert_pem)
    found = [e.value for e in certificate.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    return frozenset(str(name.value) for names in found for name in names)


def verify_pair(pair: KeyPair) -> None:
    """Raises BadCredentials unless the key belongs to the certificate."""
    _load(pair)


def _load(pair: KeyPair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _certificate(pair.cert_pem)
    try:
        key = serialization.load_pem_private_key(pair.key_pem, password=None)
    except (ValueError, TypeError):
        raise BadCredentials("the private key is not readable PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCredentials("the private key is not an elliptic-curve key")
    if _der(key.public_key()) != _public_key_der(certificate):
        raise BadCredentials("the private key does not belong to the certificate")
    return certificate, key


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise BadCredentials("the certificate is not readable PEM") from None


def _public_key_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _alternatives(dns_names: Sequence[str], ips: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
    return names + [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]


def _name(cn: str, organizations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
