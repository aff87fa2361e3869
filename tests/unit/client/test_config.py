"""kubeconfigs and service accounts: what they lead to, and what is refused by name."""

from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from fairlead.apiserver.pki import create_authority, issue
from fairlead.client.config import ConfigError, FileToken, from_kubeconfig, in_cluster


def written(folder: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None, **more: Any) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://10.0.0.1:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
        **more,
    }
    path = folder / "config"
    path.write_text(json.dumps(config))
    return path


def pem_pair() -> tuple[str, str, str]:
    authority = create_authority("test")
    pair = issue(authority, "someone", client=True)
    texts = [authority.cert_pem, pair.cert_pem, pair.key_pem]
    ca, cert, key = (t if isinstance(t, str) else t.decode() for t in texts)
    return ca, cert, key


def test_certificates_as_data(tmp_path: Path) -> None:
    """CA, certificate and key given as base64 make a verifying context; the key stays out of files."""
    ca, cert, key = pem_pair()

    def data(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    user = {"client-certificate-data": data(cert), "client-key-data": data(key)}
    connection = from_kubeconfig(written(tmp_path, user, {"certificate-authority-data": data(ca)}))
    assert connection.server == "https://10.0.0.1:6443" and connection.namespace == "shop"
    assert connection.ssl_context is not None and connection.ssl_context.verify_mode == ssl.CERT_REQUIRED
    assert len(connection.ssl_context.get_ca_certs()) == 1


def test_files_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    """Certificates given as files are looked for beside the kubeconfig; YAML is read as well as JSON."""
    ca, cert, key = pem_pair()
    for name, text in (("ca.crt", ca), ("me.crt", cert), ("me.key", key)):
        (tmp_path / name).write_text(text)
    (tmp_path / "config").write_text(
        "current-context: c\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        "clusters: [{name: k, cluster: {server: 'https://h', certificate-authority: ca.crt}}]\n"
        "users: [{name: u, user: {client-certificate: me.crt, client-key: me.key}}]\n"
    )
    assert from_kubeconfig(tmp_path / "config").ssl_context is not None


def test_tokens(tmp_path: Path) -> None:
    """A token may be given or be in a file."""
    source = from_kubeconfig(written(tmp_path, {"token": "secret"})).token_source
    assert source is not None and source.token() == "secret" and not source.refresh()
    (tmp_path / "t").write_text("one\n")
    source = from_kubeconfig(written(tmp_path, {"tokenFile": "t"})).token_source
    assert source is not None and source.token() == "one"


def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    """After a minute, and at once when the server refused the token; a file that is away keeps the last one."""
    now = 0.0
    path = tmp_path / "t"
    path.write_text("one")
    source = FileToken(path, clock=lambda: now)
    assert source.token() == "one"
    path.write_text("two")
    assert source.token() == "one"
    now = 61
    assert source.token() == "two"
    path.write_text("three")
    assert source.refresh() and source.token() == "three"
    path.unlink()
    assert not source.refresh() and source.token() == "three"


def test_impersonation(tmp_path: Path) -> None:
    """as, as-groups and as-user-extra become headers."""
    user = {"token": "t", "as": "jane", "as-groups": ["a", "b"], "as-user-extra": {"k": ["v"]}}
    assert from_kubeconfig(written(tmp_path, user)).headers == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-k", "v"),
    )


REFUSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ({"exec": {"command": "x"}}, {}, {}, "uses an exec credential plugin, which is not supported"),
    ({"username": "me", "password": "x"}, {}, {}, "uses a user name and password"),
    ({}, {"proxy-url": "http://p"}, {}, "cluster.proxy-url is not supported"),
    ({}, {"server": ""}, {}, "the cluster 'k' has no server"),
    ({}, {}, {"current-context": ""}, "current-context is not set"),
    ({}, {}, {"current-context": "other"}, "there is no context 'other' (there is: c)"),
    ({"client-certificate-data": "!"}, {}, {}, "client-certificate-data is not base64"),
    ({"client-certificate-data": "AAAA"}, {}, {}, "must be given together"),
    ({"client-certificate-data": "AAAA", "client-key-data": "AAAA"}, {}, {}, "not usable PEM"),
    ({}, {"certificate-authority": "nowhere.crt"}, {}, "cannot read certificate-authority"),
]


@pytest.mark.parametrize(("user", "cluster", "more", "message"), REFUSED, ids=[r[3] for r in REFUSED])
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    """The error names the file, the field and the trouble."""
    with pytest.raises(ConfigError) as caught:
        from_kubeconfig(written(tmp_path, user, cluster, **more))
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "a: [", "{1"])
def test_what_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    """A file that is something else is said to be so."""
    (tmp_path / "config").write_text(text)
    with pytest.raises(ConfigError, match="is not a kubeconfig"):
        from_kubeconfig(tmp_path / "config")


def test_several_files_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of $KUBECONFIG's files the first that names a thing wins."""
    for name, server in (("a", "http://a"), ("b", "http://b")):
        (tmp_path / name).mkdir()
        written(tmp_path / name, {}, {"server": server})
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a/config:{tmp_path}/nowhere:{tmp_path}/b/config")
    assert from_kubeconfig().server == "http://a"


def test_in_a_cluster(tmp_path: Path) -> None:
    """Environment and service account give server, trust and token; IPv6 is bracketed."""
    ca, _, _ = pem_pair()
    for name, text in (("ca.crt", ca), ("token", "t"), ("namespace", "shop")):
        (tmp_path / name).write_text(text)
    connection = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert connection.server == "https://[fd00::1]:443" and connection.namespace == "shop"
    assert connection.token_source is not None and connection.token_source.token() == "t"
    with pytest.raises(ConfigError, match="not in a cluster"):
        in_cluster({}, tmp_path)
