"""Question → complete answer, in zone-file syntax: every sort of record and every way of saying no."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rdatatype
import pytest

from fairlead.dns.names import packed_address, text_name
from fairlead.dns.records import Delta, PodAddress
from fairlead.dns.reply import Reply, Request, failed
from fairlead.dns.zone import Zone
from tests.unit.dns.worlds import SOA, ask, reply_to, rows, service, shown, zone


def outside(where: Zone, question: str, kind: str) -> list[tuple[str, str]]:
    """What the zone asks of others to answer a question."""
    asked = []

    def handler(request: Request) -> Reply:
        asked.append((text_name(request.query.name).lower(), dns.rdatatype.to_text(request.query.type)))
        return failed()

    reply_to(where, dns.message.make_query(question, kind).to_wire(), handler)
    return asked


SIX = "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f"  # fd00:96::6

# question, type, answer, additional; answers are NOERROR and authoritative.
ANSWERS: list[tuple[str, str, str, str]] = [
    # Services with a cluster IP
    ("web.shop.svc.cluster.local.", "A", "web.shop.svc.cluster.local. 5 IN A 10.96.0.20", ""),
    ("WeB.sHop.SVC.cluster.LOCAL.", "A", "WeB.sHop.SVC.cluster.LOCAL. 5 IN A 10.96.0.20", ""),
    ("six.shop.svc.cluster.local.", "AAAA", "six.shop.svc.cluster.local. 5 IN AAAA fd00:96::6", ""),
    ("dual.shop.svc.cluster.local.", "A", "dual.shop.svc.cluster.local. 5 IN A 10.96.0.22", ""),
    ("dual.shop.svc.cluster.local.", "AAAA", "dual.shop.svc.cluster.local. 5 IN AAAA fd00:96::22", ""),
    (
        "_http._tcp.web.shop.svc.cluster.local.",
        "SRV",
        "_http._tcp.web.shop.svc.cluster.local. 5 IN SRV 0 100 80 web.shop.svc.cluster.local.",
        "web.shop.svc.cluster.local. 5 IN A 10.96.0.20",
    ),
    (
        "_log._udp.web.shop.svc.cluster.local.",
        "SRV",
        "_log._udp.web.shop.svc.cluster.local. 5 IN SRV 0 100 514 web.shop.svc.cluster.local.",
        "web.shop.svc.cluster.local. 5 IN A 10.96.0.20",
    ),
    (  # all ports, as CoreDNS; weights are 100 shared out
        "web.shop.svc.cluster.local.",
        "SRV",
        """web.shop.svc.cluster.local. 5 IN SRV 0 33 80 web.shop.svc.cluster.local.
           web.shop.svc.cluster.local. 5 IN SRV 0 33 9090 web.shop.svc.cluster.local.
           web.shop.svc.cluster.local. 5 IN SRV 0 33 514 web.shop.svc.cluster.local.""",
        "web.shop.svc.cluster.local. 5 IN A 10.96.0.20",
    ),
    (  # two addresses count as two, one record names both
        "_http._tcp.dual.shop.svc.cluster.local.",
        "SRV",
        "_http._tcp.dual.shop.svc.cluster.local. 5 IN SRV 0 50 80 dual.shop.svc.cluster.local.",
        """dual.shop.svc.cluster.local. 5 IN A 10.96.0.22
           dual.shop.svc.cluster.local. 5 IN AAAA fd00:96::22""",
    ),
    ("_http._tcp.web.shop.svc.cluster.local.", "A", "_http._tcp.web.shop.svc.cluster.local. 5 IN A 10.96.0.20", ""),
    # headless Services
    (
        "db.shop.svc.cluster.local.",
        "A",
        """db.shop.svc.cluster.local. 5 IN A 10.244.0.8
           db.shop.svc.cluster.local. 5 IN A 10.244.1.8
           db.shop.svc.cluster.local. 5 IN A 10.244.1.9""",
        "",
    ),
    (
        "db.shop.svc.cluster.local.",
        "AAAA",
        """db.shop.svc.cluster.local. 5 IN AAAA fd00:244::
           db.shop.svc.cluster.local. 5 IN AAAA fd00:244::8""",
        "",
    ),
    ("bare.shop.svc.cluster.local.", "A", "bare.shop.svc.cluster.local. 5 IN A 10.244.0.9", ""),
    ("db-0.db.shop.svc.cluster.local.", "A", "db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.8", ""),
    ("db-0.db.shop.svc.cluster.local.", "AAAA", "db-0.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::8", ""),
    ("10-244-1-9.db.shop.svc.cluster.local.", "A", "10-244-1-9.db.shop.svc.cluster.local. 5 IN A 10.244.1.9", ""),
    (  # a label must not end with a dash
        "fd00-244--0.db.shop.svc.cluster.local.",
        "AAAA",
        "fd00-244--0.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::",
        "",
    ),
    (
        "_http._tcp.db.shop.svc.cluster.local.",
        "SRV",
        """_http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 20 8080 db-0.db.shop.svc.cluster.local.
           _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 20 8080 db-1.db.shop.svc.cluster.local.
           _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 20 8080 10-244-1-9.db.shop.svc.cluster.local.
           _http._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 20 8080 fd00-244--0.db.shop.svc.cluster.local.""",
        """db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.8
           db-1.db.shop.svc.cluster.local. 5 IN A 10.244.1.8
           10-244-1-9.db.shop.svc.cluster.local. 5 IN A 10.244.1.9
           fd00-244--0.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::
           db-0.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::8""",
    ),
    (
        "db-1.db.shop.svc.cluster.local.",
        "SRV",
        "db-1.db.shop.svc.cluster.local. 5 IN SRV 0 100 8080 db-1.db.shop.svc.cluster.local.",
        "db-1.db.shop.svc.cluster.local. 5 IN A 10.244.1.8",
    ),
    # endpoints are named under Services with a cluster IP too
    ("10-244-0-7.web.shop.svc.cluster.local.", "A", "10-244-0-7.web.shop.svc.cluster.local. 5 IN A 10.244.0.7", ""),
    # ExternalName within the zone
    (
        "alias.shop.svc.cluster.local.",
        "CNAME",
        "alias.shop.svc.cluster.local. 5 IN CNAME Web.shop.svc.cluster.local.",
        "",
    ),
    (
        "alias-2.shop.svc.cluster.local.",
        "A",
        """alias-2.shop.svc.cluster.local. 5 IN CNAME alias.shop.svc.cluster.local.
           alias.shop.svc.cluster.local. 5 IN CNAME Web.shop.svc.cluster.local.
           Web.shop.svc.cluster.local. 5 IN A 10.96.0.20""",
        "",
    ),
    (
        "alias-db.shop.svc.cluster.local.",
        "AAAA",
        """alias-db.shop.svc.cluster.local. 5 IN CNAME db.shop.svc.cluster.local.
           db.shop.svc.cluster.local. 5 IN AAAA fd00:244::
           db.shop.svc.cluster.local. 5 IN AAAA fd00:244::8""",
        "",
    ),
    ("outside.shop.svc.cluster.local.", "CNAME", "outside.shop.svc.cluster.local. 5 IN CNAME www.example.com.", ""),
    (
        "loop.shop.svc.cluster.local.",
        "CNAME",
        "loop.shop.svc.cluster.local. 5 IN CNAME loop.shop.svc.cluster.local.",
        "",
    ),
    # pods
    ("10-244-0-7.shop.pod.cluster.local.", "A", "10-244-0-7.shop.pod.cluster.local. 5 IN A 10.244.0.7", ""),
    ("fd00-244--8.shop.pod.cluster.local.", "AAAA", "fd00-244--8.shop.pod.cluster.local. 5 IN AAAA fd00:244::8", ""),
    # reverse: the cluster IP wins; else one name for each Service
    ("20.0.96.10.in-addr.arpa.", "PTR", "20.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local.", ""),
    ("8.0.244.10.in-addr.arpa.", "PTR", "8.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.shop.svc.cluster.local.", ""),
    ("7.0.244.10.in-addr.arpa.", "PTR", "7.0.244.10.in-addr.arpa. 5 IN PTR 10-244-0-7.web.shop.svc.cluster.local.", ""),
    (
        f"{SIX}.ip6.arpa.",
        "PTR",
        f"{SIX}.ip6.arpa. 5 IN PTR six.shop.svc.cluster.local.",
        "",
    ),
    # the zone itself
    ("dns-version.cluster.local.", "TXT", 'dns-version.cluster.local. 28800 IN TXT "1.1.0"', ""),
    ("cluster.local.", "SOA", f"cluster.local. 5 IN SOA {SOA}", ""),
    (
        "cluster.local.",
        "NS",
        "cluster.local. 5 IN NS kube-dns.kube-system.svc.cluster.local.",
        "kube-dns.kube-system.svc.cluster.local. 5 IN A 10.96.0.10",
    ),
    ("ns.dns.cluster.local.", "A", "ns.dns.cluster.local. 5 IN A 10.96.0.10", ""),
]

NODATA = [
    ("cluster.local.", "A"),
    ("cluster.local.", "TXT"),
    ("svc.cluster.local.", "A"),
    ("pod.cluster.local.", "A"),
    ("svc.cluster.local.", "NS"),
    ("shop.svc.cluster.local.", "A"),
    ("empty.svc.cluster.local.", "A"),
    ("shop.pod.cluster.local.", "A"),
    ("web.shop.svc.cluster.local.", "AAAA"),
    ("six.shop.svc.cluster.local.", "A"),
    ("web.shop.svc.cluster.local.", "TXT"),
    ("web.shop.svc.cluster.local.", "MX"),
    ("web.shop.svc.cluster.local.", "CNAME"),
    ("web.shop.svc.cluster.local.", "PTR"),
    ("web.shop.svc.cluster.local.", "NS"),
    ("web.shop.svc.cluster.local.", "SOA"),
    ("web.shop.svc.cluster.local.", "HTTPS"),
    ("web.shop.svc.cluster.local.", "ANY"),
    ("bare.shop.svc.cluster.local.", "SRV"),  # headless without ports
    ("db-1.db.shop.svc.cluster.local.", "AAAA"),
    ("outside.shop.svc.cluster.local.", "SRV"),
    ("outside.shop.svc.cluster.local.", "TXT"),
    ("alias-none.shop.svc.cluster.local.", "A"),  # a CNAME to what does not exist is not shown
    ("loop.shop.svc.cluster.local.", "A"),
    ("loop-a.shop.svc.cluster.local.", "A"),
    ("10-244-0-7.shop.pod.cluster.local.", "AAAA"),
    ("dns-version.cluster.local.", "A"),
    ("ns.dns.cluster.local.", "AAAA"),
    ("ns.dns.cluster.local.", "TXT"),
]

NXDOMAIN = [
    ("none.shop.svc.cluster.local.", "A"),
    ("none.shop.svc.cluster.local.", "TXT"),
    ("none.shop.svc.cluster.local.", "SOA"),
    ("web.nowhere.svc.cluster.local.", "A"),
    ("nowhere.svc.cluster.local.", "A"),
    ("nowhere.pod.cluster.local.", "A"),
    ("foo.cluster.local.", "A"),
    ("foo.cluster.local.", "NS"),
    ("dns.cluster.local.", "A"),
    ("svc.svc.cluster.local.", "A"),
    ("www.example.com.cluster.local.", "A"),
    ("example.com.svc.cluster.local.", "A"),
    ("www.example.com.shop.svc.cluster.local.", "A"),
    ("a.www.example.com.shop.svc.cluster.local.", "A"),
    ("a.b.c.web.shop.svc.cluster.local.", "A"),  # too many labels
    ("_nope._tcp.web.shop.svc.cluster.local.", "SRV"),
    ("_http._udp.web.shop.svc.cluster.local.", "SRV"),
    ("_http._tcp.plain.shop.svc.cluster.local.", "SRV"),  # the port has no name
    ("idle.shop.svc.cluster.local.", "A"),  # headless and none ready
    ("idle.shop.svc.cluster.local.", "SRV"),
    ("db-9.db.shop.svc.cluster.local.", "A"),
    ("10-244-1-10.db.shop.svc.cluster.local.", "A"),  # terminating
    ("10-244-1-7.web.shop.svc.cluster.local.", "A"),  # not ready
    ("number.shop.svc.cluster.local.", "A"),  # an address is no name
    ("number.shop.svc.cluster.local.", "CNAME"),
    ("x.outside.shop.svc.cluster.local.", "CNAME"),
    ("_http._tcp.outside.shop.svc.cluster.local.", "SRV"),
    ("nobody.shop.pod.cluster.local.", "A"),
    ("10-244-0-300.shop.pod.cluster.local.", "A"),
    ("10-244-0-7.nowhere.pod.cluster.local.", "A"),
]


def name_of(row: tuple[str, ...]) -> str:
    return f"{row[0]} {row[1]}"


@pytest.mark.parametrize(("question", "kind", "answer", "additional"), ANSWERS, ids=map(name_of, ANSWERS))
def test_answers(question: str, kind: str, answer: str, additional: str) -> None:
    """What is there is answered completely, with authority, and with nothing else."""
    message = ask(zone(), question, kind)
    assert shown(message) == ("NOERROR", rows(answer), [], rows(additional))
    assert message.flags & dns.flags.AA
    assert message.question[0].name.to_text() == question


@pytest.mark.parametrize(("question", "kind"), NODATA, ids=map(name_of, NODATA))
def test_no_data(question: str, kind: str) -> None:
    """The name exists, but not with that type: NOERROR with the SOA."""
    message = ask(zone(), question, kind)
    assert shown(message) == ("NOERROR", [], [f"cluster.local. 5 IN SOA {SOA}"], [])
    assert message.flags & dns.flags.AA


@pytest.mark.parametrize(("question", "kind"), NXDOMAIN, ids=map(name_of, NXDOMAIN))
def test_no_such_name(question: str, kind: str) -> None:
    """The name does not exist: NXDOMAIN with the SOA, whatever the type."""
    message = ask(zone(), question, kind)
    assert shown(message) == ("NXDOMAIN", [], [f"cluster.local. 5 IN SOA {SOA}"], [])
    assert message.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("example.com.", "A"),
        ("cluster.local.example.com.", "A"),
        ("xcluster.local.", "A"),
        ("local.", "A"),
        (".", "NS"),
        ("1.2.0.192.in-addr.arpa.", "PTR"),  # no address of ours
        ("99.0.96.10.in-addr.arpa.", "PTR"),  # in the service range, but nobody's
        ("20.0.96.10.in-addr.arpa.", "A"),
        ("96.10.in-addr.arpa.", "NS"),
        ("8.0.0.0.ip6.arpa.", "PTR"),
        ("10.1.244.10.in-addr.arpa.", "PTR"),  # an endpoint that is not ready
    ],
)
def test_what_is_not_ours_is_forwarded(question: str, kind: str) -> None:
    """Outside of the cluster domain, and reverse names that we have no answer for, the upstreams decide."""
    assert outside(zone(), question, kind) == [(question.lower(), kind)]


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_external_names_are_resolved_upstream(kind: str) -> None:
    """A CNAME that leads out of the zone is chased."""
    assert outside(zone(), "outside.shop.svc.cluster.local.", kind) == [("www.example.com.", kind)]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("web.shop.svc.cluster.local.", "A"),
        ("none.shop.svc.cluster.local.", "A"),
        ("cluster.local.", "SOA"),
        ("20.0.96.10.in-addr.arpa.", "PTR"),
    ],
)
def test_before_the_first_sync(question: str, kind: str) -> None:
    """Until all is known nothing is denied, and nothing is told that may be half of it: SERVFAIL."""
    assert shown(ask(zone(synced=False), question, kind))[0] == "SERVFAIL"


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_transfers_are_refused(kind: str) -> None:
    """The zone is not given away."""
    assert shown(ask(zone(), "cluster.local.", kind)) == ("REFUSED", [], [], [])


def test_pods_can_be_disabled() -> None:
    """As CoreDNS without `pods insecure`: their names do not exist."""
    where = zone(pods="disabled")
    assert shown(ask(where, "10-244-0-7.shop.pod.cluster.local.", "A"))[0] == "NXDOMAIN"
    assert shown(ask(where, "shop.pod.cluster.local.", "A"))[0] == "NXDOMAIN"
    assert shown(ask(where, "pod.cluster.local.", "A"))[0] == "NOERROR"


def test_another_domain_and_ttl() -> None:
    """Both are the cluster's choice; the SOA's own TTL is at most 300."""
    where = zone(domain="K8s.Example.org.", ttl=600)
    answer = shown(ask(where, "web.shop.svc.k8s.example.org.", "A"))
    assert answer[1] == ["web.shop.svc.k8s.example.org. 600 IN A 10.96.0.20"]
    negative = shown(ask(where, "none.shop.svc.k8s.example.org.", "A"))
    assert negative[2][0].startswith("k8s.example.org. 300 IN SOA ns.dns.k8s.example.org. hostmaster.k8s.example.org.")
    assert negative[2][0].endswith(" 7200 1800 86400 600")
    assert outside(where, "web.shop.svc.cluster.local.", "A") == [("web.shop.svc.cluster.local.", "A")]


def test_a_service_without_its_namespace_does_not_exist() -> None:
    """While a namespace is unknown so is what is in it."""
    where = zone(service("gone", "web", cluster_ips=("10.96.9.9",)))
    assert shown(ask(where, "web.gone.svc.cluster.local.", "A"))[0] == "NXDOMAIN"


def test_a_server_that_no_service_has_names_itself() -> None:
    """Run alone, the name server is ns.dns at its own address."""
    where = zone()
    where.own = (bytes((192, 0, 2, 53)),)
    assert shown(ask(where, "cluster.local.", "NS")) == (
        "NOERROR",
        ["cluster.local. 5 IN NS ns.dns.cluster.local."],
        [],
        ["ns.dns.cluster.local. 5 IN A 192.0.2.53"],
    )


def test_pods_verified() -> None:
    """A pod's name exists as long as a pod in that namespace has the address."""
    where = zone(pods="verified")
    address = packed_address("10.244.0.7")
    assert address is not None
    question = "10-244-0-7.shop.pod.cluster.local."
    assert shown(ask(where, question, "A"))[0] == "NXDOMAIN"
    touched = where.apply(Delta(pods=(PodAddress(address, ("shop",), "shop"),)))
    assert touched.services == (("shop", "pod 10.244.0.7"),)
    assert shown(ask(where, question, "A"))[1] == [f"{question} 5 IN A 10.244.0.7"]
    assert shown(ask(where, "10-244-0-7.default.pod.cluster.local.", "A"))[0] == "NXDOMAIN"
    where.apply(Delta(pods=(PodAddress(address),)))
    assert shown(ask(where, question, "A"))[0] == "NXDOMAIN"


def test_only_some_namespaces() -> None:
    """The others do not exist: not by name, not in reverse."""
    where = zone(exposed=frozenset({"default"}))
    assert shown(ask(where, "kubernetes.default.svc.cluster.local.", "A"))[0] == "NOERROR"
    for name in ("web.shop.svc.cluster.local.", "shop.svc.cluster.local.", "10-0-0-1.shop.pod.cluster.local."):
        assert shown(ask(where, name, "A"))[0] == "NXDOMAIN", name
    assert outside(where, "20.0.96.10.in-addr.arpa.", "PTR")


def test_ignore_empty_services() -> None:
    """A Service without a ready endpoint does not exist, if so configured."""
    where = zone(ignore_empty=True)
    assert shown(ask(where, "web.shop.svc.cluster.local.", "A"))[0] == "NOERROR"
    assert shown(ask(where, "plain.shop.svc.cluster.local.", "A"))[0] == "NXDOMAIN"
