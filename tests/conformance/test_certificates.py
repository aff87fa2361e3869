"""CertificateSigningRequests through kubectl: asked for, approved, denied, and what nobody may write."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SIGNER = "kubernetes.io/kube-apiserver-client"


def request(name: str, cn: str = "eve", organization: str = "crew", **spec: Any) -> dict[str, Any]:
    """A CertificateSigningRequest for a client certificate, with a key of its own."""
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization), x509.NameAttribute(NameOID.COMMON_NAME, cn)]
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    pem = made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": SIGNER,
            "usages": ["digital signature", "client auth"],
            "username": "somebody else",
            **spec,
        },
    }


def test_requests_are_approved_and_denied(kubectl):
    """Who asks is written down by the server; the table shows what became of it; a decision is final."""
    one, two = f"{kubectl.namespace}-one", f"{kubectl.namespace}-two"
    kubectl.apply(request(one, expirationSeconds=3600), request(two))
    made = json.loads(kubectl("get", "csr", one, "-o", "json"))
    assert made["spec"]["username"] == "admin"
    assert "system:masters" in made["spec"]["groups"]
    row = kubectl("get", "csr", one).splitlines()
    assert row[0].split() == ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"]
    assert row[1].split()[2:] == [SIGNER, "admin", "60m", "Pending"]
    assert "approved" in kubectl("certificate", "approve", one)
    assert "denied" in kubectl("certificate", "deny", two)
    assert [line.split()[-1] for line in kubectl("get", "csr", one, two).splitlines()[1:]] == ["Approved", "Denied"]
    approved = json.loads(kubectl("get", "csr", one, "-o", "json"))
    approved["status"]["conditions"] = []
    path = f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{one}/approval"
    kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(approved))
    assert kubectl("get", "csr", one).split()[-1] == "Approved"
    approved["spec"]["usages"] = ["any"]
    kubectl("replace", "-f", "-", stdin=json.dumps(approved))
    assert json.loads(kubectl("get", "csr", one, "-o", "json"))["spec"]["usages"] == [
        "digital signature",
        "client auth",
    ]


def test_approving_needs_the_right_for_the_signer(kubectl):
    """`update` on the subresource is not enough: `approve` on the signer too."""
    name = f"{kubectl.namespace}-x"
    kubectl.apply(request(name))
    kubectl("create", "clusterrole", name, "--verb=get,list,update", "--resource=csr,csr/approval")
    kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--user={name}")
    said = kubectl.fails("certificate", "approve", name, "--as", name)
    assert f'user not permitted to approve requests with signerName "{SIGNER}"' in said
    approver = "system:certificates.k8s.io:kube-apiserver-client-approver"
    kubectl("create", "clusterrolebinding", f"{name}-2", f"--clusterrole={approver}", f"--user={name}")
    assert "approved" in kubectl("certificate", "approve", name, "--as", name)


def test_what_is_no_request_is_refused(kubectl):
    """No PEM, no usages, an unknown usage, a signer without a domain, too short a life."""
    for spec, text in (
        ({"request": "bm9uc2Vuc2U="}, "PEM block type must be CERTIFICATE REQUEST"),
        ({"usages": []}, "spec.usages: Required value"),
        ({"usages": ["fishing"]}, "Unsupported value"),
        ({"signerName": "nobody"}, "spec.signerName: Invalid value"),
        ({"expirationSeconds": 10}, "may not specify a duration less than 600 seconds"),
    ):
        said = kubectl.fails("create", "-f", "-", stdin=json.dumps(request(f"{kubectl.namespace}-y", **spec)))
        assert text in said
