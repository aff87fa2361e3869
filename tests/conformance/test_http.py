"""The wire itself: codes, bodies, limits and headers that no client hides."""

from __future__ import annotations

import gzip
import json
import subprocess

import pytest

from tests.conformance.manifests import TOKEN, config_map

CM = "/api/v1/namespaces/default/configmaps"
JSON = ("-H", "Content-Type: application/json")


@pytest.fixture(autouse=True)
def namespace(cluster, curl):
    """The namespace these requests use."""
    body = json.dumps({"metadata": {"name": "default"}}).encode()
    curl("/api/v1/namespaces", *JSON, "--data-binary", "@-", stdin=body)


def _post(curl, path, body, *words):
    code, head, text = curl(path, *(words or JSON), "--data-binary", "@-", stdin=body)
    return code, head, json.loads(text)


def test_the_unknown_see_only_health_and_version(curl):
    """Without a certificate: 401 Status, but for four paths."""
    for path in ("/livez", "/readyz", "/healthz", "/version"):
        assert curl(path, user="")[0] == 200
    for path in ("/api", "/apis", CM, "/openapi/v3", "/nonsense"):
        code, _, body = curl(path, user="")
        status = json.loads(body)
        assert (code, status["kind"], status["reason"], status["code"]) == (401, "Status", "Unauthorized", 401)


def test_tokens_are_credentials(curl):
    """A static token is a user; a wrong one is 401, also for open paths' neighbors."""
    review = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    words = (*JSON, "-H", f"Authorization: Bearer {TOKEN}", "--data-binary", "@-")
    code, _, body = curl(path, *words, stdin=review, user="")
    assert code == 201
    assert json.loads(body)["status"]["userInfo"] == {
        "username": "robot",
        "groups": ["robots", "system:authenticated"],
    }
    assert curl(CM, "-H", "Authorization: Bearer wrong", user="")[0] == 401


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\x00\x01", b"", b"null"])
def test_a_body_that_is_no_object_is_400(curl, body):
    """Status 400, whatever it is."""
    code, _, status = _post(curl, CM, body)
    assert (code, status["reason"]) == (400, "BadRequest")


def test_a_body_of_20_mb_is_413_and_the_server_lives(curl):
    """With and without a length; the answer comes before the body is read whole."""
    big = b'{"data":{"a":"' + b"x" * 20_000_000 + b'"}}'
    for words in (JSON, (*JSON, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"), (*JSON, "-H", "Expect:")):
        code, _, status = _post(curl, CM, big, *words)
        assert (code, status["reason"]) == (413, "RequestEntityTooLarge")
        assert status["message"] == "Request entity too large: limit is 3145728"
    assert curl(CM)[0] == 200


@pytest.mark.parametrize(
    ("kind", "code"),
    [("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/json", 201), ("", 201)],
)
def test_body_types(curl, kind, code):
    """JSON, or nothing said, is taken; what isn't known is 415."""
    name = f"types-{len(kind)}"
    assert (
        _post(curl, CM, json.dumps(config_map(name)).encode(), "-H", f"Content-Type:{kind and ' ' + kind}")[0] == code
    )
    curl(f"{CM}/{name}", "-X", "DELETE")


def test_yaml_bodies(curl):
    """YAML is JSON: dates stay text, aliases are refused, what doesn't parse is 400 with the line."""
    yaml = ("-H", "Content-Type: application/yaml")
    text = b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: from-yaml}\ndata: {day: 2026-01-02}\n"
    code, _, made = _post(curl, CM, text, *yaml)
    assert (code, made["data"]) == (201, {"day": "2026-01-02"})
    curl(f"{CM}/from-yaml", "-X", "DELETE")
    assert "aliases" in _post(curl, CM, b"a: &x {b: 1}\nc: *x\n", *yaml)[2]["message"]
    assert "line 2" in _post(curl, CM, b"a: 1\n b: : :\n", *yaml)[2]["message"]


def test_field_validation_warns_or_refuses(curl):
    """Strict: 400. Warn, the default: a Warning header, and the field is gone. Ignore: only gone. Duplicates too."""
    body = b'{"metadata":{"name":"fv"},"data":{"a":"1"},"dta":{},"data":{"a":"2"}}'
    code, _, status = _post(curl, f"{CM}?fieldValidation=Strict", body)
    assert code == 400
    assert 'strict decoding error: duplicate field "data", unknown field "dta"' in status["message"]
    code, head, made = _post(curl, CM, body)
    assert code == 201
    assert 'Warning: 299 - "unknown field \\"dta\\""' in head
    assert 'Warning: 299 - "duplicate field \\"data\\""' in head
    assert "dta" not in made
    assert made["data"] == {"a": "2"}
    curl(f"{CM}/fv", "-X", "DELETE")
    code, head, _ = _post(curl, f"{CM}?fieldValidation=Ignore", body)
    assert (code, "Warning" in head) == (201, False)
    curl(f"{CM}/fv", "-X", "DELETE")
    assert _post(curl, f"{CM}?fieldValidation=Maybe", body)[0] == 422


def test_forms_and_refusals(curl):
    """Only protobuf: 406. YAML: YAML. Unknown paths: 404 Status. Verbs a resource lacks: 405."""
    assert curl(CM, "-H", "Accept: application/vnd.kubernetes.protobuf")[0] == 406
    assert b"kind: ConfigMapList" in curl(CM, "-H", "Accept: application/yaml")[2]
    code, _, body = curl("/apis/nope/v1/things")
    assert (code, json.loads(body)["message"]) == (404, "the server could not find the requested resource")
    assert curl("/api/v1/pods", "-X", "POST", *JSON, "-d", "{}")[0] == 405
    assert curl("/apis/authentication.k8s.io/v1/selfsubjectreviews")[0] == 405
    assert curl("/apis/apps/v1", "-X", "POST", "-d", "{}")[0] == 405
    meta = "Accept: application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    assert json.loads(curl(CM, "-H", meta)[2])["kind"] == "PartialObjectMetadataList"


def test_large_answers_are_compressed_when_asked(curl):
    """gzip from 128 KiB on, only for those who ask."""
    big = config_map("big", blob="x" * 200_000)
    _post(curl, CM, json.dumps(big).encode())
    _, head, body = curl(f"{CM}/big", "-H", "Accept-Encoding: gzip")
    assert "Content-Encoding: gzip" in head
    assert json.loads(gzip.decompress(body))["data"] == big["data"]
    assert "Content-Encoding" not in curl(f"{CM}/big")[1]
    assert "Content-Encoding" not in curl("/version", "-H", "Accept-Encoding: gzip")[1]
    curl(f"{CM}/big", "-X", "DELETE")


def test_pretty_for_people(curl):
    """curl sees indented JSON; programs and pretty=false do not."""
    assert b"\n  " in curl("/version")[2]
    assert b"\n  " not in curl("/version?pretty=false")[2]
    assert b"\n  " not in curl("/version", "-A", "program/1")[2]


def test_an_expired_resource_version(curl, cluster):
    """List: 410 Status. Watch: 200, and an ERROR event that holds the 410."""
    revision = json.loads(curl(CM)[2])["metadata"]["resourceVersion"]
    _post(curl, CM, json.dumps(config_map("expiring")).encode())
    curl(f"{CM}/expiring", "-X", "DELETE")
    _post(curl, CM, json.dumps(config_map("expiring")).encode())
    cluster.run(cluster.store.compact(cluster.store.revision))
    code, _, body = curl(f"{CM}?watch=1&resourceVersion={revision}&timeoutSeconds=5")
    event = json.loads(body.splitlines()[0])
    assert (code, event["type"], event["object"]["code"], event["object"]["reason"]) == (200, "ERROR", 410, "Expired")
    code, _, body = curl(f"{CM}?resourceVersion={revision}&resourceVersionMatch=Exact&limit=5")
    assert (code, json.loads(body)["reason"]) == (410, "Expired")
    curl(f"{CM}/expiring", "-X", "DELETE")


def test_watches_end_with_their_timeout_and_tell_initial_events(curl):
    """timeoutSeconds ends the stream whole; sendInitialEvents ends its list with the bookmark."""
    _post(curl, CM, json.dumps(config_map("seen")).encode())
    query = "watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    code, head, body = curl(f"{CM}?{query}")
    assert code == 200
    assert "chunked" in head
    events = [json.loads(line) for line in body.splitlines()]
    assert "seen" in [e["object"]["metadata"].get("name") for e in events if e["type"] == "ADDED"]
    marks = [e["object"]["metadata"].get("annotations") for e in events if e["type"] == "BOOKMARK"]
    assert {"k8s.io/initial-events-end": "true"} in marks
    curl(f"{CM}/seen", "-X", "DELETE")


def test_openapi_may_be_kept_for_ever(curl):
    """Each document's address holds its hash; an old hash leads to the new one; ETags answer 304."""
    paths = json.loads(curl("/openapi/v3")[2])["paths"]
    address = paths["api/v1"]["serverRelativeURL"]
    code, head, _ = curl(address)
    assert code == 200
    assert "immutable" in head
    etag = next(line.split(": ", 1)[1] for line in head.splitlines() if line.lower().startswith("etag"))
    assert curl(address, "-H", f"If-None-Match: {etag}")[0] == 304
    code, head, _ = curl("/openapi/v3/api/v1?hash=OLD")
    assert code == 301
    assert address in head


def test_a_strangers_certificate_is_refused(cluster, tmp_path):
    """A certificate of another authority does not get through the handshake."""
    from fairlead.apiserver import pki

    pair = pki.issue(pki.create_authority("stranger"), "admin", ["system:masters"], client=True)
    (tmp_path / "x.crt").write_bytes(pair.cert_pem)
    (tmp_path / "x.key").write_bytes(pair.key_pem)
    command = ["curl", "-sS", "--cacert", str(cluster.directory / "ca.crt")]
    command += ["--cert", str(tmp_path / "x.crt"), "--key", str(tmp_path / "x.key"), cluster.server.url + CM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "kind" not in done.stdout
