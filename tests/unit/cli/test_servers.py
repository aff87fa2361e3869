"""`fairlead apiserver` and `fairlead controllers`: what is wrong with their flags is said in one line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fairlead.apiserver import pki
from fairlead.cli import apiserver
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.standalone import Folder, Serving, files_of, read_tokens
from fairlead.registry import User
from tests.unit.cli.test_main import run


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("apiserver", "--store", "mysql://x"), 2, "--store 'mysql://x': use sqlite:FILE, memory or etcd://HOST:PORT"),
        (("apiserver", "--store", "etcd://a:b"), 2, "is no etcd address"),
        (("apiserver", "--store", "memory", "--etcd-servers", "http://a:1"), 2, "give one"),
        (("apiserver", "--etcd-servers", "a:1"), 2, "write http://HOST:PORT"),
        (("apiserver", "--etcd-servers", "https://a:1"), 2, "needs --etcd-cafile"),
        (("apiserver", "--store", "memory", "--etcd-prefix", "/x"), 2, "--etcd-prefix is for etcd"),
        (("apiserver", "--store", "memory", "--etcd-cafile", "/x"), 2, "are for etcd"),
        (("apiserver", "--listen", "localhost:1"), 2, "--listen 'localhost' is no IP address"),
        (("apiserver", "--listen", "127.0.0.1"), 2, "write IP:PORT"),
        (("apiserver", "--listen", "127.0.0.1:1", "--secure-port", "2"), 2, "give one or the others"),
        (("apiserver", "--service-cluster-ip-range", "10.0.0.0/8,10.1.0.0/16"), 2, "one of each family"),
        (("apiserver", "--service-node-port-range", "9-1"), 2, "write 30000-32767"),
        (("apiserver", "--tls-cert-file", "x"), 2, "add --client-ca-file"),
        (("apiserver", "--kubelet-client-key", "x"), 2, "go together"),
        (("controllers", "--kubeconfig", "/nonexistent"), 1, "/nonexistent"),
    ],
)
def test_wrong_flags_are_named(  # noqa: PLR0917
    arguments: tuple[str, ...],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The flag, what is wrong with it, and what to write; nothing is left on disk."""
    monkeypatch.chdir(tmp_path)
    got, out, err = run(*arguments, capsys=capsys)
    assert (got, out) == (code, "")
    assert words in err, err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_way_in_is_told_only_once_it_is_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An API server that can't listen says why, and no kubectl line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = ("--store", "memory", "--listen", f"127.0.0.1:{port}", "--cert-dir", str(tmp_path))
        code, out, err = run("apiserver", *flags, capsys=capsys)
    assert (code, out) == (1, "")
    assert "address already in use" in err
    assert "kubectl" not in err


def test_the_timing_of_an_election_must_leave_room(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Upstream's rule, in its words."""
    serving = Serving(store="memory", host="127.0.0.1", port=6443, folder=tmp_path)
    files_of(serving)
    words = ("controllers", "--kubeconfig", str(serving.kubeconfig("controllers")))
    for flags, said in (
        (("--leader-elect-lease-duration", "10s"), "leaseDuration must be greater than renewDeadline"),
        (("--leader-elect-retry-period", "soon"), "--leader-elect-retry-period 'soon' is no duration"),
        (("--cluster-signing-key-file", "x"), "go together"),
    ):
        code, _, err = run(*words, *flags, capsys=capsys)
        assert code == 2
        assert said in err


def test_flags_become_values(tmp_path: Path) -> None:
    """etcd by upstream's flags; both families; everything else by default."""
    flags = apiserver.command.make_context("apiserver", ["--cert-dir", str(tmp_path)]).params
    serving = apiserver._serving(flags)
    assert (serving.store, serving.url) == (f"sqlite:{tmp_path / 'state.db'}", "https://127.0.0.1:6443")
    flags |= {"etcd_servers": "http://a:1,http://b:2", "etcd_prefix": "/mine", "bind_address": "::", "secure_port": 7}
    flags |= {"service_cluster_ip_range": "fd00::/112,10.0.0.0/16"}
    serving = apiserver._serving(flags)
    assert (serving.store, serving.url) == ("etcd://a:1,b:2/mine", "https://[::1]:7")
    assert serving.registry.ip_families == ("IPv6", "IPv4")


def test_two_servers_share_a_folder(tmp_path: Path) -> None:
    """One authority and one key for tokens; certificates and kubeconfigs of their own; nothing is made twice, unless
    its address changed; only their owner may read them."""
    one = Serving(store="memory", host="127.0.0.1", port=1, folder=tmp_path / "pki")
    two = Serving(store="memory", host="0.0.0.0", port=1, advertise="192.0.2.1", folder=tmp_path / "pki")
    first, second = files_of(one), files_of(two)
    assert (first.client_ca, first.signing_key) == (second.client_ca, second.signing_key)
    assert first.cert != second.cert
    assert "192.0.2.1" in pki.hosts_of(second.cert.read_bytes())
    assert one.kubeconfig("admin").exists() and two.kubeconfig("admin").exists()
    before = {file: file.read_bytes() for file in (tmp_path / "pki").iterdir()}
    assert files_of(one) == first
    assert {file: file.read_bytes() for file in (tmp_path / "pki").iterdir()} == before
    assert {file.stat().st_mode & 0o777 for file in before} == {0o600}
    (tmp_path / "pki" / "ca.key").write_text("x")
    with pytest.raises(ClusterError, match="unusable"):
        Folder(tmp_path / "pki")


def test_token_files_are_upstreams(tmp_path: Path) -> None:
    """token,user,uid and groups in quotes; a short line is named."""
    file = tmp_path / "tokens.csv"
    file.write_text('# who\nt1,alice,1,"dev,ops"\nt2,bob,2\n\n')
    assert read_tokens(file) == {"t1": User("alice", ("dev", "ops"), "1"), "t2": User("bob", (), "2")}
    file.write_text("t1,alice,1\nt2\n")
    with pytest.raises(ClusterError, match="line 2: write token,user,uid"):
        read_tokens(file)
