"""What the cluster's signers sign, and that what is signed is what was asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fairlead.apiserver import pki
from fairlead.cluster.signing import CLIENT, KUBELET_CLIENT, KUBELET_SERVING, refusal

KEY = ec.generate_private_key(ec.SECP256R1())
USAGES = {"digital signature", "client auth"}
SERVING = {"digital signature", "server auth"}


def asked(cn: str = "system:node:n1", organizations=("system:nodes",), names=(), ips=(), others=()) -> pki.Requested:
    return pki.Requested(cn, tuple(organizations), tuple(names), tuple(ips), tuple(others), KEY.public_key())


@pytest.mark.parametrize(
    ("signer", "request_", "usages", "why"),
    [
        (CLIENT, asked("eve", ("crew",)), USAGES, ""),
        (CLIENT, asked("eve"), SERVING, "usages did not match"),
        (CLIENT, asked("eve", ("system:masters",)), USAGES, "system:masters group is not allowed"),
        (CLIENT, asked(""), USAGES, "subject common name is required"),
        (KUBELET_CLIENT, asked(), USAGES, ""),
        (KUBELET_CLIENT, asked(), USAGES | {"key encipherment"}, ""),
        (KUBELET_CLIENT, asked(), {"client auth"}, "usages did not match"),
        (KUBELET_CLIENT, asked("eve"), USAGES, "subject common name does not begin with system:node:"),
        (KUBELET_CLIENT, asked(organizations=("crew",)), USAGES, "subject organization is not system:nodes"),
        (KUBELET_CLIENT, asked(organizations=("system:nodes", "system:masters")), USAGES, "subject organization"),
        (KUBELET_CLIENT, asked(names=("n1",)), USAGES, "DNS and IP subject alternative names are not allowed"),
        (KUBELET_CLIENT, asked(others=("a@b",)), USAGES, "email and URI"),
        (KUBELET_SERVING, asked(names=("n1",)), SERVING, ""),
        (KUBELET_SERVING, asked(), SERVING, "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, asked("system:node:n2", ips=("10.0.0.1",)), SERVING, "is not the requestor's"),
    ],
)
def test_each_signer_has_its_rules(signer, request_, usages, why):
    """Usages, subject and alternative names; a node gets no certificate of another group, or for another's name."""
    said = refusal(signer, request_, usages, "system:node:n1")
    assert why in said
    assert bool(said) == bool(why)


def test_a_request_becomes_the_certificate_it_asks_for():
    """Subject, names and key are the request's; the use and the life are the signer's."""
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "crew"), x509.NameAttribute(NameOID.COMMON_NAME, "eve")]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("eve.example")]), critical=False)
    pem = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    read = pki.read_request(pem)
    assert (read.cn, read.organizations, read.dns_names) == ("eve", ("crew",), ("eve.example",))
    authority = pki.create_authority("test")
    signed = pki.sign_request(authority, read, client=True, server=False, lasts=timedelta(hours=1))
    assert pki.subject_of(signed) == ("eve", ("crew",))
    certificate = x509.load_pem_x509_certificate(signed)
    assert certificate.public_key() == KEY.public_key()
    assert 3600 <= (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds() <= 4000
    x509.load_pem_x509_certificate(authority.cert_pem)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.cert_pem))


def test_a_request_that_cannot_be_read_is_said():
    """Nonsense, and a request changed after it was signed."""
    with pytest.raises(pki.BadCredentials, match="not readable"):
        pki.read_request(b"nonsense")
