"""The node-local cache of deploy/: its links, rules and Corefile, in a network namespace of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.kernel

DEPLOY = Path(__file__).parents[2] / "deploy"

SCRIPT = r"""
set -e
ip link set lo up
sh "$1/links.sh"
sh "$1/links.sh"  # twice changes nothing
ip address add 10.96.0.10/32 dev lo
"$0" -m fairlead dns --config "$1/upstream" >"$1/upstream.log" 2>&1 &
upstream=$!
trap 'kill $upstream $server 2>/dev/null || true' EXIT
"$0" -m fairlead dns --config "$1/Corefile" --share-port >"$1/server.log" 2>&1 &
server=$!
until grep -q "answering on" "$1/upstream.log" && grep -q "answering on" "$1/server.log"; do
    kill -0 $server $upstream
    sleep 0.05
done
for name in web.shop.svc.cluster.local www.example.com; do
    dig +short @169.254.20.10 $name
    dig +short +tcp @169.254.20.10 $name
done
nft list table ip fairlead-node-dns | grep -c notrack
grep -c 169.254.20.10 /proc/net/nf_conntrack 2>/dev/null || true
"""

UPSTREAM = """
.:53 {
    bind 10.96.0.10 127.0.0.1
    template IN A cluster.local {
        answer "{{ .Name }} 30 IN A 10.96.0.20"
    }
    template IN A {
        answer "{{ .Name }} 30 IN A 192.0.2.1"
    }
}
"""


def test_node_local(tmp_path: Path) -> None:
    """Names of the cluster come from the cluster's DNS, others from the node's, over UDP and TCP."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network namespace")
    for tool, package in (
        ("unshare", "util-linux"),
        ("nft", "nftables"),
        ("dig", "bind9-dnsutils"),
        ("ip", "iproute2"),
    ):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (Debian package {package})")
    manifests = yaml.safe_load_all((DEPLOY / "dns-node-local.yaml").read_text())
    data = next(manifest["data"] for manifest in manifests if manifest["kind"] == "ConfigMap")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    corefile = data["Corefile"].replace("/etc/resolv.conf", str(tmp_path / "resolv.conf"))
    (tmp_path / "Corefile").write_text(corefile)
    (tmp_path / "links.sh").write_text(data["links.sh"])
    (tmp_path / "upstream").write_text(UPSTREAM)
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", SCRIPT, sys.executable, str(tmp_path)],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr.decode() + "".join(log.read_text() for log in tmp_path.glob("*.log"))
    words = done.stdout.decode().split()
    assert words[:5] == ["10.96.0.20", "10.96.0.20", "192.0.2.1", "192.0.2.1", "3"]
    assert words[5:] in ([], ["0"])
