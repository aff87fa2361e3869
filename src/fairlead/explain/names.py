"""The hop of the name: the pod's resolv.conf, the names its search path tries, what the DNS said, what it should say.

Pure. What should be said comes from the snapshot alone, as the DNS' own answers do. Invariant: an answer that agrees
with the API is no finding here, whatever it is: its cause is elsewhere.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from fairlead.discovery.model import ServiceKey, ServiceSnapshot
from fairlead.explain.evidence import DNSAnswer, Evidence, Object
from fairlead.explain.report import Hop
from fairlead.kubelet.resolvconf import ResolvConf, parse


class Expected(NamedTuple):
    """What the DNS should say of a name. `known` False: it is not the cluster's to say."""

    known: bool
    rcode: str = ""
    addresses: frozenset[str] = frozenset()
    alias: str = ""


def candidates(name: str, conf: ResolvConf) -> tuple[str, ...]:
    """The full names a resolver asks for, in order (resolv.conf(5); glibc)."""
    if name.endswith("."):
        return (name,)
    ndots = 1
    for option in conf.options:
        if option.startswith("ndots:") and option[6:].isdigit():
            ndots = min(int(option[6:]), 15)
    searched = tuple(f"{name}.{domain.rstrip('.')}." for domain in conf.searches)
    return (f"{name}.", *searched) if name.count(".") >= ndots else (*searched, f"{name}.")


def expected(snapshot: ServiceSnapshot, domain: str, name: str, family: str = "IPv4") -> Expected:
    """What the cluster's DNS should answer, by the Kubernetes DNS specification."""
    labels = name.rstrip(".").lower().split(".")
    tail = domain.lower().split(".")
    if labels[-len(tail) :] != tail:
        return Expected(False)
    labels = labels[: -len(tail)]
    if not labels or labels[-1] != "svc":
        return Expected(False)
    if len(labels) == 4:  # hostname or address of an endpoint of a headless Service
        service = snapshot.services.get(ServiceKey(labels[2], labels[1]))
        if service is None or not service.headless:
            return Expected(True, "NXDOMAIN")
        wanted = {
            e.address
            for s in service.slices
            if s.address_type == family
            for e in s.endpoints
            if (e.ready or service.publish_not_ready) and labels[0] in (e.hostname, e.address.replace(".", "-"))
        }
        return Expected(True, "NOERROR" if wanted else "NXDOMAIN", frozenset(wanted))
    if len(labels) < 3:  # svc, or a namespace: a name with others below it, if it is there
        exists = len(labels) == 1 or labels[0] in snapshot.namespaces
        return Expected(True, "NOERROR" if exists else "NXDOMAIN")
    if len(labels) > 4:
        return Expected(True, "NXDOMAIN")
    service = snapshot.services.get(ServiceKey(labels[1], labels[0]))
    if service is None:
        return Expected(True, "NXDOMAIN")
    if service.type == "ExternalName":
        return Expected(True, "NOERROR", alias=service.external_name)
    if not service.headless:
        return Expected(
            True, "NOERROR", frozenset(ip for ip in service.cluster_ips if (":" in ip) == (family == "IPv6"))
        )
    found = frozenset(
        e.address
        for s in service.slices
        if s.address_type == family
        for e in s.endpoints
        if e.ready or service.publish_not_ready
    )
    return Expected(True, "NOERROR" if found else "NXDOMAIN", found)


def usual_name(service: ServiceKey, client_namespace: str) -> str:
    """The shortest name of a Service from a pod of that namespace."""
    return service.name if service.namespace == client_namespace else f"{service.name}.{service.namespace}"


class Lookup(NamedTuple):
    """How looking a name up went. `down`: no name server answered; `answer` the first that had the name."""

    answer: DNSAnswer | None
    down: bool
    settled: bool  # the findings of this hop say why it failed


def examine(evidence: Evidence, pod: Object, name: str, hop: Hop, family: str = "IPv4") -> Lookup:
    """Check resolv.conf and every answer."""
    kernel = evidence.kernel_of(pod)
    policy = (pod.get("spec") or {}).get("dnsPolicy") or "ClusterFirst"
    if kernel is None or kernel.resolv_conf is None:
        hop.state = "unseen"
        hop.say(f"pod/{pod['metadata']['name']}'s resolv.conf was not seen (dnsPolicy {policy})")
        return Lookup(None, False, False)
    conf = parse(kernel.resolv_conf)
    hop.say(
        f"resolv.conf: nameserver {', '.join(conf.nameservers) or 'none'}; search {' '.join(conf.searches) or 'none'}; "
        f"options {' '.join(conf.options) or 'none'}"
    )
    tried = candidates(name, conf)
    answers = {(a.name, a.server): a for a in evidence.answers}
    won: DNSAnswer | None = None
    asked: list[DNSAnswer] = []
    for full in tried:
        for server in conf.nameservers or ("127.0.0.1",):
            answer = answers.get((full, server))
            if answer is None:
                continue
            asked.append(answer)
            hop.say(_line(answer))
            if answer.rcode in ("NOERROR", "NXDOMAIN"):
                break
        last = asked[-1] if asked else None
        if last is not None and last.name == full and last.rcode == "NOERROR" and (last.addresses or last.alias):
            won = last
            break
    foreign = bool(evidence.facts.dns_ip) and evidence.facts.dns_ip not in conf.nameservers
    down = bool(asked) and all(a.rcode in ("no answer", "refused", "unreachable") for a in asked)
    right = [expected(evidence.snapshot, evidence.facts.domain, full, family) for full in tried]
    ours = any(e.known and e.rcode == "NOERROR" and (e.addresses or e.alias) for e in right)
    if foreign and won is None:
        _foreign(evidence, pod, policy, conf, hop)
        return Lookup(None, down, True)
    alive = any(a.name not in tried and a.rcode == "NOERROR" for a in evidence.answers)
    lost = next((a for a in asked if _upstream_lost(a, _should(evidence, a, family))), None)
    if down and not (alive and lost):
        return Lookup(None, True, False)
    if won is not None:
        _compare(won, _should(evidence, won, family), hop)
        _ndots(name, tried, won, conf, hop)
        return Lookup(won, False, hop.broken)
    if lost is not None:
        hop.find(
            "FL047",
            f"{lost.server} knows the cluster's names, and gets no answer for {lost.name} from the servers it "
            f"forwards to ({lost.rcode})",
            "see what its Corefile forwards to (by default the node's /etc/resolv.conf), and that its pods reach that: "
            "kubectl -n kube-system logs -l k8s-app=kube-dns",
        )
        return Lookup(None, False, True)
    wrong = [a for a in asked if _differs(a, _should(evidence, a, family))]
    if wrong:
        _compare(wrong[0], _should(evidence, wrong[0], family), hop)
    elif not ours:
        _not_found(evidence, pod, name, tried, hop)
    return Lookup(None, False, hop.broken)


def _upstream_lost(answer: DNSAnswer, should: Expected) -> bool:
    """Whether nobody was found who knows a name that leads out of the cluster: itself, as an alias, or, where the DNS
    walks the search path by itself, at the end of that."""
    return not should.addresses and answer.rcode in ("SERVFAIL", "REFUSED", "no answer")


def _ndots(name: str, tried: tuple[str, ...], won: DNSAnswer, conf: ResolvConf, hop: Hop) -> None:
    """A name that the search path completes, and that is asked as it is first."""
    if len(tried) == 1 or tried[0].rstrip(".") != name.rstrip(".") or won.name == tried[0]:
        return
    ndots = next((option for option in conf.options if option.startswith("ndots:")), "ndots:1")
    hop.find(
        "FL048",
        f"with {ndots} {name} is asked as it is before the search path: outside of the cluster, and by musl only there",
        f"call it {(won.alias or won.name).rstrip('.')}, or leave spec.dnsConfig.options ndots at 5 (a new pod)",
    )


def _should(evidence: Evidence, answer: DNSAnswer, family: str) -> Expected:
    """What the answer should have been. A DNS may walk the search path itself and answer by an alias: then what it
    leads to counts."""
    domain = evidence.facts.domain
    should = expected(evidence.snapshot, domain, answer.name, family)
    if should.known and should.rcode == "NXDOMAIN" and answer.alias:
        led = expected(evidence.snapshot, domain, answer.alias, family)
        return led._replace(alias=answer.alias) if led.known and not led.alias else Expected(False)
    return should


def _line(answer: DNSAnswer) -> str:
    said = ", ".join(answer.addresses)
    if answer.alias:
        said = f"CNAME {answer.alias}" + (f" {said}" if said else "")
    said = (said or "no address") if answer.rcode == "NOERROR" else answer.rcode
    return f"{answer.name} → {said}  ({answer.server}, {answer.milliseconds:.1f} ms)"


def _differs(answer: DNSAnswer, should: Expected) -> bool:
    if answer.rcode in ("SERVFAIL", "REFUSED") and should.known:
        return True
    if not should.known or answer.rcode not in ("NOERROR", "NXDOMAIN"):
        return False
    if should.alias and not should.addresses:  # without an alias in it, the answer is that the target has no address
        return bool(answer.alias) and answer.alias.rstrip(".").lower() != should.alias.rstrip(".").lower()
    return answer.rcode != should.rcode or frozenset(answer.addresses) != should.addresses


def _compare(answer: DNSAnswer, should: Expected, hop: Hop) -> None:
    if not _differs(answer, should):
        return
    said = ", ".join(answer.addresses) or answer.rcode
    hop.find(
        "FL044",
        f"{answer.server} says {said} for {answer.name}; by the API it is "
        f"{', '.join(sorted(should.addresses)) or should.alias or should.rcode}",
        "see whether the DNS pods still reach the API server: kubectl -n kube-system logs -l k8s-app=kube-dns",
    )


def _foreign(evidence: Evidence, pod: Object, policy: str, conf: ResolvConf, hop: Hop) -> None:
    name = pod["metadata"]["name"]
    servers = ", ".join(conf.nameservers) or "none"
    if policy == "Default" or (policy == "ClusterFirst" and (pod.get("spec") or {}).get("hostNetwork")):
        better = "ClusterFirstWithHostNet" if policy == "ClusterFirst" else "ClusterFirst"
        hop.find(
            "FL042",
            f"pod/{name} has dnsPolicy {policy}: it asks {servers}, which knows nothing of the cluster's names",
            f"set spec.dnsPolicy: {better} (a new pod)",
        )
        return
    hop.find(
        "FL041",
        f"pod/{name}'s resolv.conf names {servers}, not the cluster's DNS {evidence.facts.dns_ip} (dnsPolicy {policy})",
        "mend spec.dnsConfig.nameservers, or set dnsPolicy: ClusterFirst (a new pod)",
    )


def _not_found(evidence: Evidence, pod: Object, name: str, tried: tuple[str, ...], hop: Hop) -> None:
    """Every name tried is rightly NXDOMAIN: is there a Service that was meant?"""
    first = name.rstrip(".").split(".")[0]
    namespace = pod["metadata"].get("namespace", "")
    meant = sorted(str(k.namespace) for k in evidence.snapshot.services if k.name == first and k.namespace != namespace)
    if meant and "." not in name.rstrip("."):
        hop.find(
            "FL043",
            f"{name} is not found from namespace {namespace}: the search path looks in {namespace} only, "
            f"and Service {first} is in {', '.join(meant)}",
            f"call it {first}.{meant[0]}",
        )
        return
    known = sorted({k.name for k in evidence.snapshot.services})
    close = difflib.get_close_matches(first, known, 1, 0.7)
    hint = f"did you mean {close[0]}?" if close and close[0] != first else "see: kubectl get svc -A"
    hop.find("FL043", f"none of the {len(tried)} names tried for {name} exists", hint)
