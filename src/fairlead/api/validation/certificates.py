"""CertificateSigningRequests. Source of rules and words: upstream's `pkg/apis/certificates/validation`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from fairlead.api.errors import FieldError, forbidden, invalid, not_supported, required
from fairlead.api.labels import check_dns1123_subdomain

Object = Mapping[str, Any]

USAGES = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)
_LEAST_SECONDS = 600
_HEADS = (b"-----BEGIN CERTIFICATE REQUEST-----", b"-----BEGIN NEW CERTIFICATE REQUEST-----")


def validate_signing_request(request: Object) -> list[FieldError]:
    """A new request: PEM, a signer, usages that are known."""
    spec = request.get("spec") or {}
    errors: list[FieldError] = []
    if not any(_decoded(spec.get("request") or "").lstrip().startswith(head) for head in _HEADS):
        errors.append(invalid("spec.request", spec.get("request") or "", "PEM block type must be CERTIFICATE REQUEST"))
    usages = spec.get("usages") or []
    if not usages:
        errors.append(required("spec.usages"))
    for index, usage in enumerate(usages):
        if usage not in USAGES:
            errors.append(not_supported(f"spec.usages[{index}]", usage, USAGES))
    signer = spec.get("signerName") or ""
    domain, _, path = signer.partition("/")
    if not signer:
        errors.append(required("spec.signerName"))
    elif not path or "." not in domain or check_dns1123_subdomain(domain):
        what = 'must be a fully qualified domain and path of the form "example.com/signer-name"'
        errors.append(invalid("spec.signerName", signer, what))
    elif signer == "kubernetes.io/legacy-unknown":
        errors.append(invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version"))
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _LEAST_SECONDS:
        errors.append(
            invalid(
                "spec.expirationSeconds",
                seconds,
                f"may not specify a duration less than {_LEAST_SECONDS} seconds (10 minutes)",
            )
        )
    return errors


def validate_signing_request_status(new: Object, old: Object) -> list[FieldError]:
    """Conditions: each type once, one decision, true; a certificate once."""
    errors: list[FieldError] = []
    status, before = new.get("status") or {}, old.get("status") or {}
    seen: set[str] = set()
    for index, condition in enumerate(status.get("conditions") or ()):
        at, kind = f"status.conditions[{index}]", condition.get("type") or ""
        if not kind:
            errors.append(required(f"{at}.type"))
        if condition.get("status") not in ("True", "False", "Unknown"):
            errors.append(not_supported(f"{at}.status", condition.get("status") or "", ["True", "False", "Unknown"]))
        elif kind in ("Approved", "Denied", "Failed") and condition["status"] != "True":
            errors.append(not_supported(f"{at}.status", condition["status"], ["True"]))
        if kind in seen:
            errors.append(invalid(f"{at}.type", kind, "duplicate condition"))
        seen.add(kind)
    if {"Approved", "Denied"} <= seen:
        errors.append(invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive"))
    if before.get("certificate") and status.get("certificate") != before["certificate"]:
        errors.append(forbidden("status.certificate", "updates may not change the certificate once it is set"))
    return errors


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
