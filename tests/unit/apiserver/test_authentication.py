"""Who is asking, and the tokens that say so."""

import asyncio
import time
from datetime import UTC, datetime

import jwt
import pytest

from fairlead.api.errors import StatusError, not_found
from fairlead.apiserver import pki
from fairlead.apiserver.authentication import ANONYMOUS, Authenticator, of_certificate
from fairlead.apiserver.tokens import TokenIssuer
from fairlead.registry import RequestContext, User

ISSUER = "https://issuer.test"


class Objects:
    """A registry with a few objects in it, by (plural, namespace, name)."""

    def __init__(self) -> None:
        self.uids = {("serviceaccounts", "shop", "web"): "sa-1", ("pods", "shop", "web-0"): "pod-1"}

    async def get(self, resource, namespace, name, ctx=None, *, subresource=""):
        """The object's metadata."""
        uid = self.uids.get((resource.plural, namespace, name))
        if uid is None:
            raise not_found(resource.plural, resource.group, name)
        return {"metadata": {"name": name, "namespace": namespace, "uid": uid}}


KEY = pki.create_signing_key()


@pytest.fixture
def objects():
    """The objects tokens are about."""
    return Objects()


@pytest.fixture
def issuer(objects):
    """An issuer with a fresh memory."""
    return TokenIssuer(objects, KEY, ISSUER)


def _request(issuer, spec, name="web", now=None):
    ctx = RequestContext(now=now or datetime.now(UTC))
    body = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}
    return asyncio.run(issuer.request("shop", name, body, ctx))


def _verify(issuer, token, now=None):
    return asyncio.run(issuer.verify(token, now or time.time()))


def test_a_token_names_its_service_account(issuer):
    """What was issued verifies, as the account's user with its groups and the pod it is bound to."""
    made = _request(issuer, {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web-0", "uid": "pod-1"}})
    assert made["spec"]["audiences"] == [ISSUER]
    user = _verify(issuer, made["status"]["token"])
    assert user.name == "system:serviceaccount:shop:web"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated")
    assert user.uid == "sa-1"
    assert user.extra["authentication.kubernetes.io/pod-name"] == ["web-0"]
    assert jwt.decode(made["status"]["token"], options={"verify_signature": False})["kubernetes.io"]["pod"] == {
        "name": "web-0",
        "uid": "pod-1",
    }


@pytest.mark.parametrize(
    "what", ["account deleted", "account anew", "pod anew", "expired", "other key", "other audience"]
)
def test_a_token_that_no_longer_holds_is_nobody(issuer, objects, what):
    """Each way for a token to be bad."""
    now = datetime.now(UTC)
    spec = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web-0"}}
    if what == "other audience":
        spec["audiences"] = ["vault"]
    source = TokenIssuer(objects, pki.create_signing_key(), ISSUER) if what == "other key" else issuer
    token = _request(source, spec, now=now)["status"]["token"]
    if what == "account deleted":
        del objects.uids[("serviceaccounts", "shop", "web")]
    elif what == "account anew":
        objects.uids[("serviceaccounts", "shop", "web")] = "sa-2"
    elif what == "pod anew":
        objects.uids[("pods", "shop", "web-0")] = "pod-2"
    later = now.timestamp() + (3601 if what == "expired" else 0)
    assert _verify(issuer, token, later) is None


def test_what_was_verified_is_remembered_briefly_and_never_past_expiry(issuer, objects):
    """Ten seconds after the account is gone its token is, too."""
    now = time.time()
    token = _request(issuer, {})["status"]["token"]
    assert _verify(issuer, token, now)
    objects.uids.clear()
    assert _verify(issuer, token, now + 9)
    assert _verify(issuer, token, now + 11) is None


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"expirationSeconds": 60}, 422, "may not specify a duration less than 10 minutes"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "nope"}}, 404, 'pods "nope" not found'),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web-0", "uid": "x"}}, 409, "does not match"),
        ({"boundObjectRef": {"kind": "Deployment", "apiVersion": "apps/v1", "name": "x"}}, 400, "not supported"),
    ],
)
def test_bad_token_requests_are_refused(issuer, spec, code, words):
    """Too short a life, and objects that are not there or not the same."""
    with pytest.raises(StatusError, match=words) as caught:
        _request(issuer, spec)
    assert caught.value.status["code"] == code


def test_no_account_no_token(issuer):
    """404 for an account that isn't there."""
    with pytest.raises(StatusError, match="not found"):
        _request(issuer, {}, name="nobody")


def _authenticate(header, certificate=None, issuer=None):
    tokens = {"s3cret": User("deployer", ("crew",))}
    return asyncio.run(Authenticator(tokens, issuer).authenticate(certificate, header))


def test_certificates_static_tokens_and_nothing():
    """Each credential's user; without any, anonymous."""
    certificate = {"subject": ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "me"),))}
    assert of_certificate(certificate) == User("me", ("a", "b", "system:authenticated"))
    assert of_certificate({"subject": ()}) is None
    assert _authenticate("", certificate).name == "me"
    assert _authenticate("Bearer s3cret") == User("deployer", ("crew", "system:authenticated"))
    assert _authenticate("") is ANONYMOUS
    assert _authenticate("Basic abc") is ANONYMOUS


@pytest.mark.parametrize("token", ["wrong", "a.b.c", "s3cre", "é"])
def test_a_token_that_is_not_known_is_401_and_never_anonymous(token, issuer):
    """A wrong credential is an error."""
    with pytest.raises(StatusError) as caught:
        _authenticate(f"Bearer {token}", issuer=issuer)
    assert caught.value.status["code"] == 401


def test_the_key_set_verifies_what_was_signed(issuer):
    """Others can verify our tokens with the published keys alone."""
    token = _request(issuer, {"audiences": ["vault"]})["status"]["token"]
    (key,) = issuer.jwks()["keys"]
    claims = jwt.decode(token, jwt.PyJWK(key).key, algorithms=["ES256"], audience="vault")
    assert claims["sub"] == "system:serviceaccount:shop:web"
