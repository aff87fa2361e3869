"""The stand-alone proxy: what a KubeProxyConfiguration and flags mean, what is refused by name, what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fairlead.cli.proxy import command
from fairlead.proxy.config import ConfigurationError, complete, parse_bind, parse_configuration, parse_duration
from fairlead.proxy.serving import Bind

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
KUBEADM = (
    HEAD
    + """
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: 12h0m0s
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpTimeout: 0s}
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, networkName: ""}
"""
)


def test_what_kubeadm_writes_is_taken() -> None:
    """The file of a kubeadm cluster works as it is, with the defaults of this proxy where it leaves them open."""
    settings = complete(parse_configuration(KUBEADM), lambda: "Node-1")
    assert settings.options.node_name == "node-1"
    assert settings.options.cluster_cidrs == ("10.244.0.0/16",)
    assert settings.options.node_port_addresses == ("primary",)
    assert settings.kubeconfig == "/var/lib/kube-proxy/kubeconfig.conf"
    assert (settings.tracking.tcp_established, settings.tracking.tcp_close_wait) == (43200, 3600)
    assert (settings.health, settings.metrics) == (Bind("", 10256), Bind("127.0.0.1", 10249))


def test_empty_addresses_are_the_defaults() -> None:
    """Of the family of bindAddress, as in kube-proxy."""
    settings = parse_configuration(HEAD + 'bindAddress: "::"\nhealthzBindAddress: ""\noomScoreAdj: -999')
    assert (settings.health, settings.metrics) == (Bind("", 10256), Bind("::1", 10249))
    assert settings.oom_score_adj == -999


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("mode: userspace", "mode 'userspace' is not supported"),
        ("featureGates: {X: true}", "featureGates: has no meaning"),
        ("oomScoreAdj: -1001", "oomScoreAdj -1001 is not in -1000 to 1000"),
        ("nftables: {colour: red}", "nftables.colour: unknown field"),
        ("clusterCIDR: nonsense", "clusterCIDR 'nonsense' is no network"),
        ("detectLocalMode: Guess", "detectLocalMode 'Guess' is not supported"),
        ("detectLocalMode: BridgeInterface", "needs --pod-bridge-interface"),
        ("conntrack: {udpTimeout: soon}", "conntrack.udpTimeout 'soon' is no duration"),
        ("nodePortAddresses: [primary, 10.0.0.0/8]", "primary stands alone"),
        ("bindAddressHardFail: 7", "bindAddressHardFail must be of type bool"),
        ("healthzBindAddress: here", "healthzBindAddress 'here' is no address"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(field: str, message: str) -> None:
    """The field and the way out are named."""
    with pytest.raises(ConfigurationError, match=message):
        complete(parse_configuration(HEAD + field), lambda: "n1")


def test_what_has_no_effect_is_said() -> None:
    """Periods are taken, and said to do nothing."""
    settings = parse_configuration(HEAD + "nftables: {minSyncPeriod: 1s}\nclientConnection: {qps: 50}")
    assert [note.split(" has")[0] for note in settings.notes] == ["nftables.minSyncPeriod", "clientConnection.qps"]


def test_values() -> None:
    """Durations and addresses are read as kube-proxy reads them."""
    assert parse_duration("x", "1h30m") == 5400
    assert parse_bind("x", "0.0.0.0:99", 1) == Bind("", 99)
    assert parse_bind("x", "127.0.0.1", 1) == Bind("127.0.0.1", 1)
    assert parse_bind("x", "[::1]:5", 1) == Bind("::1", 5)
    assert parse_bind("x", "::", 7) == Bind("", 7)


STATE = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
  spec: {clusterIP: 10.96.0.5, clusterIPs: [10.96.0.5], ports: [{port: 80, protocol: TCP, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.1.2]}, {addresses: [10.244.2.2]}]
"""


def test_render_prints_the_rules(tmp_path: Path) -> None:
    """The rules of a state given as YAML, without a kernel; what is no Service is refused by name."""
    file = tmp_path / "state.yaml"
    file.write_text(STATE)
    done = CliRunner().invoke(command, ["render", "--hostname-override", "n1", "-f", str(file)])
    assert done.exit_code == 0, done.output
    assert '10.96.0.5 . tcp . 80 comment "shop/web"' in done.output
    assert "elements = { 192.0.2.1 }" in done.output
    done = CliRunner().invoke(command, ["render", "--mode", "iptables", "--hostname-override", "n1", "-f", str(file)])
    assert (
        '-d 10.96.0.5/32 -p tcp -m comment --comment "shop/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-'
        in done.output
    )
    file.write_text("{apiVersion: v1, kind: Pod}")
    done = CliRunner().invoke(command, ["render", "-f", str(file)])
    assert done.exit_code == 1
    assert "v1 Pod is not read" in done.output


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    """A flag changes what the file says; an unknown flag or mode is refused by name."""
    file, state = tmp_path / "config.yaml", tmp_path / "state.yaml"
    file.write_text(KUBEADM)
    state.write_text(STATE)
    flags = ["render", "--config", str(file), "--cluster-cidr", "172.20.0.0/16", "-f", str(state)]
    done = CliRunner().invoke(command, flags)
    assert "ip saddr != 172.20.0.0/16 ip daddr @cluster-ips" in done.output
    done = CliRunner().invoke(command, [*flags, "--proxy-mode", "userspace"])
    assert (done.exit_code, "mode 'userspace' is not supported" in done.output) == (1, True)
    assert "--feature-gates" in CliRunner().invoke(command, ["--feature-gates", "X=true"]).output
    done = CliRunner().invoke(command, ["--kubeconfig", "/nonexistent"])
    assert (done.exit_code, "/nonexistent" in done.output) == (1, True)
