"""The certificates really verify, for the uses they name and no other."""

import contextlib
import ssl
from datetime import timedelta

import pytest

from fairlead.apiserver import pki


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """A TLS handshake in memory; returns the server's side. Raises ssl.SSLError when a side refuses the other."""
    a, b, c, d = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(a, b, server_side=True)
    client_side = client.wrap_bio(c, d, server_hostname=name)
    for _ in range(10):
        for side, source, target in ((client_side, d, a), (server_side, b, c)):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            target.write(source.read())
    return server_side


def _context(tmp_path, purpose: int, ca: pki.KeyPair, pair: pki.KeyPair | None) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.load_verify_locations(cadata=ca.cert_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if pair:
        (tmp_path / "cert").write_bytes(pair.cert_pem)
        (tmp_path / "key").write_bytes(pair.key_pem)
        context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_server_and_a_client_verify_each_other_strictly(tmp_path):
    """Mutual TLS works with strict X.509 checks, by address, and tells user and groups."""
    ca = pki.create_authority("fairlead")
    serving = pki.issue(ca, "apiserver", dns_names=["kubernetes.default"], ips=["10.96.0.1", "127.0.0.1"], server=True)
    admin = pki.issue(ca, "admin", ("system:masters", "crew"), client=True)
    side = _handshake(
        _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, ca, serving),
        _context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, ca, admin),
        "10.96.0.1",
    )
    subject = dict(pair for rdn in side.getpeercert()["subject"] for pair in rdn)
    assert subject["commonName"] == "admin"
    assert pki.subject_of(admin.cert_pem) == ("admin", ("system:masters", "crew"))


@pytest.mark.parametrize("case", ["wrong name", "client serving", "other authority"])
def test_what_was_not_issued_for_this_is_refused(tmp_path, case):
    """A name not listed, a client certificate used to serve and a strange authority all fail the handshake."""
    ca = pki.create_authority("fairlead")
    other = pki.create_authority("other")
    issuer = other if case == "other authority" else ca
    serving = pki.issue(
        issuer, "x", dns_names=["a.test"], client=case == "client serving", server=case != "client serving"
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(
            _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, ca, serving),
            _context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, ca, pki.issue(ca, "u", client=True)),
            "b.test" if case == "wrong name" else "a.test",
        )


def test_bad_material_is_named_without_showing_it():
    """Unreadable and mismatched pairs say which half is wrong; no key material is in the message or the repr."""
    ca = pki.create_authority("fairlead")
    other = pki.create_authority("other")
    with pytest.raises(pki.BadCredentials, match="certificate is not readable"):
        pki.verify_pair(pki.KeyPair(b"junk", ca.key_pem))
    with pytest.raises(pki.BadCredentials, match="private key is not readable"):
        pki.issue(pki.KeyPair(ca.cert_pem, b"junk"), "x", client=True)
    with pytest.raises(pki.BadCredentials, match="does not belong"):
        pki.verify_pair(pki.KeyPair(ca.cert_pem, other.key_pem))
    assert b"PRIVATE" not in repr(ca).encode()
    with pytest.raises(ValueError, match="needs a use"):
        pki.issue(ca, "x")


def test_a_leaf_never_outlives_its_authority():
    """Asking for more days than the authority has left is cut to the authority's end."""
    ca = pki.create_authority("fairlead", days=10)
    leaf = pki.issue(ca, "x", client=True, lasts=timedelta(days=1000))
    assert pki.expires(leaf.cert_pem) == pki.expires(ca.cert_pem)


def test_signing_keys_have_a_public_half_and_hashes_are_stable():
    """A signing key's public half is PEM; the authority's hash does not change between calls."""
    assert pki.public_key_of(pki.create_signing_key()).startswith(b"-----BEGIN PUBLIC KEY-----")
    ca = pki.create_authority("fairlead")
    assert pki.ca_hash(ca.cert_pem) == pki.ca_hash(ca.cert_pem)
    assert pki.ca_hash(ca.cert_pem).startswith("sha256:")
