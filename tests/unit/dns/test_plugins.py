"""What each plugin of a Corefile does to a question, without sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest

from fairlead.dns.names import packed_address
from fairlead.dns.records import Delta, PodAddress, ServiceRecords
from fairlead.dns.reply import BRIEFLY, WHILE, Silence, Transfer
from tests.unit.dns.corefiles import Site
from tests.unit.dns.worlds import lines, rows

CLUSTER = "kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods verified\n fallthrough in-addr.arpa ip6.arpa\n }\n"


def block(body: str, key: str = ".") -> str:
    return f"{key} {{\n{body}\n}}\n"


async def answers(site: Site, question: str, kind: str = "A", **options: object) -> list[str]:
    return lines((await site.ask(question, kind, **options)).answer)


# -- who answers


async def test_the_longest_zone_decides() -> None:
    """Stub domains are server blocks; what nobody serves is REFUSED."""
    text = block("chaos a\nany", "example.org") + block(
        'template IN A {\n answer "{{ .Name }} 9 IN A 192.0.2.9"\n}', "b.example.org"
    )
    site = Site(text)
    assert await answers(site, "x.b.example.org.") == ["x.b.example.org. 9 IN A 192.0.2.9"]
    assert (await site.ask("x.example.org.")).rcode() == dns.rcode.REFUSED
    assert site.router.route((b"example", b"net")) is None


async def test_kubernetes_falls_through_only_where_it_may() -> None:
    """A reverse name that is not the cluster's goes on; a name of the cluster domain does not."""
    site = Site(block(CLUSTER + "template ANY ANY {\n rcode NOTIMP\n}"))
    assert (await site.ask("web.shop.svc.cluster.local.")).rcode() == dns.rcode.NOTIMP  # template stands before it
    site = Site(block(CLUSTER + "whoami"))
    assert (await site.ask("none.shop.svc.cluster.local.")).rcode() == dns.rcode.NXDOMAIN
    assert (await site.ask("1.2.0.192.in-addr.arpa.", "PTR")).additional
    assert await answers(site, "20.0.96.10.in-addr.arpa.", "PTR")


async def test_reverse_zones_without_fallthrough_are_denied() -> None:
    """With a SOA of the reverse zone itself."""
    site = Site(block("kubernetes cluster.local 0.10.in-addr.arpa", "cluster.local 0.10.in-addr.arpa"))
    message = await site.ask("1.0.0.10.in-addr.arpa.", "PTR")
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert lines(message.authority)[0].startswith("0.10.in-addr.arpa. 5 IN SOA ns.dns.0.10.in-addr.arpa.")


async def test_several_zones_of_one_cluster() -> None:
    """The same records under each name."""
    site = Site(block("kubernetes cluster.local k8s.example.org {\n ttl 30\n namespaces shop\n}"))
    for zone in ("cluster.local", "k8s.example.org"):
        assert await answers(site, f"web.shop.svc.{zone}.") == [f"web.shop.svc.{zone}. 30 IN A 10.96.0.20"]
        assert (await site.ask(f"kubernetes.default.svc.{zone}.")).rcode() == dns.rcode.NXDOMAIN


# -- autopath


AUTOPATH = block(
    "autopath cluster.local @kubernetes\n"
    + CLUSTER
    + 'template IN A example.com {\n match "^www[.]example[.]com[.]$"\n'
    ' answer "{{ .Name }} 60 IN A 192.0.2.1"\n fallthrough\n}\ntemplate ANY ANY example.com {\n rcode NXDOMAIN\n}'
).replace("template IN A example.com", "template IN A www.example.com")


def with_pod(site: Site, namespace: str = "shop") -> None:
    address = packed_address("10.244.9.9")
    assert address is not None
    site.book.apply(Delta(pods=(PodAddress(address, (namespace,), namespace),)))


async def test_autopath_answers_a_search_path_at_once() -> None:
    """A pod's first try for an outside name brings the outside's answer, with a CNAME that leads there."""
    site = Site(AUTOPATH)
    with_pod(site)
    question = "www.example.com.shop.svc.cluster.local."
    assert await answers(site, question) == [
        f"{question} 60 IN CNAME www.example.com.",
        "www.example.com. 60 IN A 192.0.2.1",
    ]
    assert await answers(site, "kubernetes.default.shop.svc.cluster.local.") == [
        "kubernetes.default.shop.svc.cluster.local. 5 IN CNAME kubernetes.default.svc.cluster.local.",
        "kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1",
    ]


@pytest.mark.parametrize(
    ("question", "client"),
    [
        ("www.example.com.shop.svc.cluster.local.", "10.244.9.10"),  # nobody's address
        ("www.example.com.default.svc.cluster.local.", "10.244.9.9"),  # another namespace
        ("www.example.com.svc.cluster.local.", "10.244.9.9"),  # not the first try
        ("nowhere.example.com.shop.svc.cluster.local.", "10.244.9.9"),  # not anywhere
    ],
)
async def test_autopath_leaves_all_else_alone(question: str, client: str) -> None:
    """NXDOMAIN, as without it."""
    site = Site(AUTOPATH)
    with_pod(site)
    message = await site.ask(question, client=client)
    assert (message.rcode(), message.answer) == (dns.rcode.NXDOMAIN, [])
    assert lines(message.authority)[0].startswith("cluster.local. 5 IN SOA")


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_autopath_when_the_outside_cannot_say(rcode: str) -> None:
    """The client gets the truth about the name it asked for, and goes on by itself."""
    site = Site(
        block("autopath cluster.local @kubernetes\n" + CLUSTER + f"template ANY ANY com {{\n rcode {rcode}\n}}")
    )
    with_pod(site)
    message = await site.ask("www.example.com.shop.svc.cluster.local.")
    assert message.rcode() == dns.rcode.NXDOMAIN
    _, reply = await site.reply(dns.message.make_query("www.example.com.shop.svc.cluster.local.", "A").to_wire())
    assert reply.keep == 0


async def test_what_autopath_says_is_for_one_namespace() -> None:
    """The reply says for whom it holds, and everything it follows from."""
    site = Site(AUTOPATH)
    with_pod(site)
    packet = dns.message.make_query("kubernetes.default.shop.svc.cluster.local.", "A").to_wire()
    _, theirs = await site.reply(packet)
    assert (theirs.only_for, theirs.not_for, theirs.keep) == ("shop", "", WHILE)
    assert set(theirs.depends) == {("shop", "default"), ("default", "kubernetes")}
    _, others = await site.reply(packet, client="10.244.9.10")
    assert (others.only_for, others.not_for, others.keep) == ("", "shop", WHILE)


# -- plugins that answer


async def test_hosts(tmp_path: Path) -> None:
    """Lines of the file and of the Corefile, wildcards, both ways; what it does not know goes on or is SERVFAIL."""
    (tmp_path / "hosts").write_text("192.0.2.1 a.example.org A2\n2001:db8::1 a.example.org\nnonsense\n")
    body = "hosts hosts example.org a2 {\n 192.0.2.7 *.w.example.org b.example.org\n ttl 60\n %s\n}\nwhoami"
    site = Site(block(body % "fallthrough"), file=str(tmp_path / "Corefile"))
    assert await answers(site, "A.example.org.") == ["A.example.org. 60 IN A 192.0.2.1"]
    assert await answers(site, "a.example.org.", "AAAA") == ["a.example.org. 60 IN AAAA 2001:db8::1"]
    assert await answers(site, "a2.") == ["a2. 60 IN A 192.0.2.1"]
    assert await answers(site, "x.w.example.org.") == ["x.w.example.org. 60 IN A 192.0.2.7"]
    assert sorted(await answers(site, "1.2.0.192.in-addr.arpa.", "PTR")) == [
        "1.2.0.192.in-addr.arpa. 60 IN PTR A2.",
        "1.2.0.192.in-addr.arpa. 60 IN PTR a.example.org.",
    ]
    nodata = await site.ask("a.example.org.", "TXT")
    assert (nodata.rcode(), nodata.answer) == (dns.rcode.NOERROR, [])
    assert (await site.ask("c.example.org.")).additional  # whoami's
    site = Site(block(body % "no_reverse"), file=str(tmp_path / "Corefile"))
    assert (await site.ask("c.example.org.")).rcode() == dns.rcode.SERVFAIL
    assert not await answers(site, "1.2.0.192.in-addr.arpa.", "PTR")


TEMPLATES = [
    (
        'template IN A {\n match "^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)-([0-9]+)-([0-9]+)[.]example[.]org[.]$"\n'
        ' answer "{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ index .Match 3 }}.{{ index .Match 4 }}"\n}',
        "ip-192-0-2-7.example.org.",
        ["ip-192-0-2-7.example.org. 60 IN A 192.0.2.7"],
    ),
    (
        'template IN A {\n match "^ip0a(?P<b>[a-f0-9]{2})(?P<c>[a-f0-9]{2})(?P<d>[a-f0-9]{2})[.]"\n'
        ' answer "{{ .Name }} 60 IN A 10.{{ parseInt .Group.b 16 8 }}.{{ parseInt .Group.c 16 8 }}.'
        '{{ parseInt .Group.d 16 8 }}"\n}',
        "ip0a60ff01.example.org.",
        ["ip0a60ff01.example.org. 60 IN A 10.96.255.1"],
    ),
    (
        'template IN A {\n answer "{{ .Name }} IN A {{ if eq .Zone `.` }}192.0.2.1{{ else }}192.0.2.2{{ end }}"\n}',
        "x.example.org.",
        ["x.example.org. 3600 IN A 192.0.2.1"],
    ),
    (
        'template IN ANY {\n answer "{{ .Name }} 1 {{ .Class }} CNAME {{ printf `%s-%d` .Type 7 }}.example.net."\n}',
        "x.example.org.",
        ["x.example.org. 1 IN CNAME a-7.example.net."],
    ),
]


@pytest.mark.parametrize(("text", "question", "expected"), TEMPLATES)
async def test_template(text: str, question: str, expected: list[str]) -> None:
    """Groups by name and number, functions, conditions."""
    assert [line.replace("A-7", "a-7") for line in await answers(Site(block(text)), question)] == expected


async def test_a_template_of_one_type_answers_any() -> None:
    """A query for ANY takes what there is, as CoreDNS has it."""
    site = Site(block('template IN A {\n answer "{{ .Name }} 60 IN A 192.0.2.1"\n}'))
    assert await answers(site, "x.example.org.", "ANY") == ["x.example.org. 60 IN A 192.0.2.1"]


async def test_template_without_a_match() -> None:
    """SERVFAIL, unless it may fall through; a record that cannot be is SERVFAIL too."""
    text = 'template IN A {\n match "^a[.]$"\n answer "{{ .Name }} IN A %s"\n%s}\nwhoami'
    assert (await Site(block(text % ("192.0.2.1", ""))).ask("b.")).rcode() == dns.rcode.SERVFAIL
    assert (await Site(block(text % ("192.0.2.1", "fallthrough\n"))).ask("b.")).additional
    assert (await Site(block(text % ("nonsense", ""))).ask("a.")).rcode() == dns.rcode.SERVFAIL


async def test_any_chaos_local_whoami() -> None:
    """Each answers its own, and nothing else."""
    site = Site(block("any\nchaos v1 me you\nlocal\nwhoami"))
    assert await answers(site, "example.org.", "ANY") == ['example.org. 8482 IN HINFO "ANY obsoleted" "See RFC 8482"']
    chaos = dns.message.make_query("version.bind.", "TXT", rdclass="CH")
    assert (await site.ask_message(chaos)).answer[0][0].to_text() == '"v1"'
    assert await answers(site, "localhost.") == ["localhost. 604800 IN A 127.0.0.1"]
    assert await answers(site, "localhost.example.org.", "AAAA") == ["localhost.example.org. 604800 IN AAAA ::1"]
    assert await answers(site, "1.0.0.127.in-addr.arpa.", "PTR") == ["1.0.0.127.in-addr.arpa. 604800 IN PTR localhost."]
    assert (await site.ask("9.0.0.127.in-addr.arpa.", "PTR")).rcode() == dns.rcode.NXDOMAIN
    message = await site.ask("example.org.", client="192.0.2.77", transport="tcp")
    assert lines(message.additional) == rows("example.org. 0 IN A 192.0.2.77\n_tcp.example.org. 0 IN SRV 0 0 40000 .")


ZONE = """
$TTL 1h
$ORIGIN example.org.
@ IN SOA ns1 hostmaster ( 7 7200 ; refresh
    1800 86400 300 )
  NS ns1
ns1 A 192.0.2.53
www 60 IN A 192.0.2.1
www 60 A 192.0.2.2
alias CNAME www
out CNAME www.example.com.
txt TXT "a b" c
*.wild MX 10 mail.wild
sub NS ns.sub
ns.sub A 192.0.2.54
a.deep A 192.0.2.9
old DNAME new.example.org.
x.new A 192.0.2.10
odd TYPE731 \\# 3 abcdef
"""


@pytest.fixture
def zone_file(tmp_path: Path) -> Path:
    path = tmp_path / "db.example.org"
    path.write_text(ZONE)
    return path


@pytest.mark.parametrize(
    ("question", "kind", "rcode", "expected"),
    [
        (
            "alias.example.org.",
            "A",
            "NOERROR",
            """alias.example.org. 3600 IN CNAME www.example.org.
               www.example.org. 60 IN A 192.0.2.1
               www.example.org. 60 IN A 192.0.2.2""",
        ),
        ("txt.example.org.", "TXT", "NOERROR", 'txt.example.org. 3600 IN TXT "a b" "c"'),
        ("a.b.wild.example.org.", "MX", "NOERROR", "a.b.wild.example.org. 3600 IN MX 10 mail.wild.example.org."),
        ("deep.example.org.", "A", "NOERROR", ""),
        ("none.example.org.", "A", "NXDOMAIN", ""),
        ("odd.example.org.", "TYPE731", "NOERROR", "odd.example.org. 3600 IN TYPE731 \\# 3 abcdef"),
        (
            "x.old.example.org.",
            "A",
            "NOERROR",
            """old.example.org. 3600 IN DNAME new.example.org.
               x.old.example.org. 3600 IN CNAME x.new.example.org.
               x.new.example.org. 3600 IN A 192.0.2.10""",
        ),
        (
            "example.org.",
            "SOA",
            "NOERROR",
            "example.org. 3600 IN SOA ns1.example.org. hostmaster.example.org. 7 7200 1800 86400 300",
        ),
    ],
)
async def test_file(zone_file: Path, question: str, kind: str, rcode: str, expected: str) -> None:
    """CNAME, wildcard, empty non-terminal, unknown type, DNAME, denial."""
    site = Site(block(f"file {zone_file}", "example.org"))
    message = await site.ask(question, kind)
    assert dns.rcode.to_text(message.rcode()) == rcode
    assert lines(message.answer) == rows(expected)
    if not expected:
        assert lines(message.authority)[0].startswith("example.org. 300 IN SOA")


async def test_file_refers_below_a_cut(zone_file: Path) -> None:
    """Not authoritative, with the name servers and their addresses."""
    message = await Site(block(f"file {zone_file}", "example.org")).ask("x.sub.example.org.")
    assert not message.flags & dns.flags.AA
    assert lines(message.authority) == ["sub.example.org. 3600 IN NS ns.sub.example.org."]
    assert lines(message.additional) == ["ns.sub.example.org. 3600 IN A 192.0.2.54"]


async def test_transfer(zone_file: Path) -> None:
    """For those it is for, over TCP: all records between two SOAs. Else, and without the plugin, REFUSED."""
    text = block(f"file {zone_file}\ntransfer {{\n to 10.244.9.9\n}}", "example.org")
    packet = dns.message.make_query("example.org.", "AXFR").to_wire()
    with pytest.raises(Transfer) as transfer:
        await Site(text).reply(packet, transport="tcp")
    assert len(list(transfer.value.records)) == ZONE.count("\n") - 5
    assert (
        await Site(text).ask("example.org.", "AXFR", client="10.244.9.8", transport="tcp")
    ).rcode() == dns.rcode.REFUSED
    assert (
        await Site(block(f"file {zone_file}", "example.org")).ask("example.org.", "AXFR")
    ).rcode() == dns.rcode.REFUSED
    assert (await Site(block(CLUSTER)).ask("cluster.local.", "AXFR", transport="tcp")).rcode() == dns.rcode.REFUSED


# -- plugins that change questions and answers


REWRITES = [
    ("rewrite name a.example.org web.shop.svc.cluster.local", "A.example.org.", "A.example.org. 5 IN A 10.96.0.20"),
    (
        "rewrite name suffix .prod.example.org .svc.cluster.local answer auto",
        "web.shop.prod.example.org.",
        "web.shop.prod.example.org. 5 IN A 10.96.0.20",
    ),
    (
        "rewrite stop {\n name regex (.*)[.]my[.]org[.] {1}.shop.svc.cluster.local\n"
        " answer name (.*)[.]shop[.]svc[.]cluster[.]local[.] {1}.my.org\n}",
        "web.my.org.",
        "web.my.org. 5 IN A 10.96.0.20",
    ),
    ("rewrite name prefix x- web", "x-.shop.svc.cluster.local.", "web.shop.svc.cluster.local. 5 IN A 10.96.0.20"),
    ("rewrite name substring api web", "api.shop.svc.cluster.local.", "web.shop.svc.cluster.local. 5 IN A 10.96.0.20"),
    ("rewrite ttl regex .* 30-300", "web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. 30 IN A 10.96.0.20"),
    (
        "rewrite continue name a.org b.org\nrewrite name b.org web.shop.svc.cluster.local",
        "a.org.",
        "a.org. 5 IN A 10.96.0.20",
    ),
    (
        "rewrite cname suffix .example.com. .shop.svc.cluster.local.",
        "outside.shop.svc.cluster.local.",
        "outside.shop.svc.cluster.local. 5 IN CNAME www.shop.svc.cluster.local.",
    ),
]


@pytest.mark.parametrize(("rule", "question", "expected"), REWRITES)
async def test_rewrite_names(rule: str, question: str, expected: str) -> None:
    """The client sees its own question, and what the rule says of the answer."""
    message = await Site(block(f"{rule}\n{CLUSTER}")).ask(question)
    assert message.question[0].name.to_text() == question
    assert lines(message.answer) == rows(expected)


async def test_rewritten_answers_are_remembered_like_others() -> None:
    """They follow from the packet and the Service alone."""
    site = Site(block(f"rewrite name a.example.org web.shop.svc.cluster.local\n{CLUSTER}"))
    request, reply = await site.reply(dns.message.make_query("a.example.org.", "A").to_wire())
    assert (reply.keep, reply.depends, request.personal) == (WHILE, (("shop", "web"),), False)


async def test_rewrite_types_and_codes() -> None:
    """Of the question, and of the answer."""
    site = Site(block(f"rewrite type ANY A\nrewrite rcode regex .* NXDOMAIN NOERROR\n{CLUSTER}"))
    assert await answers(site, "web.shop.svc.cluster.local.", "ANY")
    assert (await site.ask("none.shop.svc.cluster.local.")).rcode() == dns.rcode.NOERROR


async def test_acl() -> None:
    """By network and type, the first rule that matches; such answers are not remembered."""
    text = (
        "acl {\n allow net 10.244.9.0/24\n filter type AAAA net 192.0.2.0/24\n drop net 192.0.2.66\n block\n}\n"
        + CLUSTER
    )
    site = Site(block(text))
    name = "web.shop.svc.cluster.local."
    assert await answers(site, name)
    assert (await site.ask(name, client="198.51.100.1")).rcode() == dns.rcode.REFUSED
    assert (await site.ask(name, "AAAA", client="192.0.2.1")).rcode() == dns.rcode.NOERROR
    with pytest.raises(Silence):
        await site.ask(name, client="192.0.2.66")
    request, _ = await site.reply(dns.message.make_query(name, "A").to_wire())
    assert request.personal


async def test_dns64() -> None:
    """AAAA made of A, for IPv6 clients or all; what has AAAA is left alone."""
    name = "web.shop.svc.cluster.local."
    made = [f"{name} 5 IN AAAA 64:ff9b::a60:14"]
    assert await answers(Site(block(f"dns64\n{CLUSTER}")), name, "AAAA", client="2001:db8::9") == made
    assert await answers(Site(block(f"dns64\n{CLUSTER}")), name, "AAAA") == []
    site = Site(block(f"dns64 {{\n allow_ipv4\n prefix 2001:db8:64::/48\n}}\n{CLUSTER}"))
    assert await answers(site, name, "AAAA") == [f"{name} 5 IN AAAA 2001:db8:64:a60:0:1400::"]
    assert await answers(site, "six.shop.svc.cluster.local.", "AAAA") == [
        "six.shop.svc.cluster.local. 5 IN AAAA fd00:96::6"
    ]


async def test_minimal_nsid_header_bufsize() -> None:
    """No additional records; who answered, if asked; flags; the size over UDP."""
    site = Site(block(f"minimal\nnsid me\nheader {{\n response set ra\n response clear aa\n}}\nbufsize 512\n{CLUSTER}"))
    message = await site.ask("_http._tcp.web.shop.svc.cluster.local.", "SRV")
    assert message.answer and not message.additional
    assert message.flags & dns.flags.RA and not message.flags & dns.flags.AA
    query = dns.message.make_query("web.shop.svc.cluster.local.", "A", use_edns=0)
    assert (await site.ask_message(query)).options == ()
    query.use_edns(0, 0, 4096, options=[dns.edns.GenericOption(3, b"")])
    (option,) = (await site.ask_message(query)).options
    assert option.to_wire() == b"me"
    assert site.router.route((b"x",)).style.udp_size == 512  # type: ignore[union-attr]


async def test_loadbalance(tmp_path: Path) -> None:
    """Without it the order stays; with weights the heavy one is mostly first; preferred networks come first."""
    name = "db.shop.svc.cluster.local."

    def firsts(found: list[list[str]]) -> set[str]:
        return {answer[0].split()[-1] for answer in found}

    assert len(firsts([await answers(Site(block(CLUSTER)), name)])) == 1
    (tmp_path / "weights").write_text(f"{name}\n10.244.0.8 255\n10.244.1.8 1\n")
    site = Site(block(f"loadbalance weighted {tmp_path}/weights\n{CLUSTER}"))
    found = [(await answers(site, name))[0].split()[-1] for _ in range(60)]
    assert found.count("10.244.0.8") > 45
    site = Site(block(f"loadbalance weighted {tmp_path}/weights {{\n reload 5ms\n}}\n{CLUSTER}"))
    (work,) = (work for one in site.generation.sites for work in one.background)
    follow = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    (tmp_path / "weights").write_text(f"{name}\n10.244.0.8 1\n10.244.1.8 255 # turned\n")
    async with asyncio.timeout(5):
        while [(await answers(site, name))[0].split()[-1] for _ in range(10)].count("10.244.1.8") < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    (tmp_path / "weights").write_text("no weights at all, but words")
    await asyncio.sleep(0.05)
    assert not follow.done()
    follow.cancel()
    assert [(await answers(site, name))[0].split()[-1] for _ in range(60)].count("10.244.1.8") > 45
    site = Site(block(f"loadbalance round_robin {{\n prefer 10.244.1.9/32\n}}\n{CLUSTER}"))
    assert firsts([await answers(site, name) for _ in range(10)]) == {"10.244.1.9"}


async def test_log() -> None:
    """One line a question, in CoreDNS's format; only of the classes and names that are wanted."""
    site = Site(block(f'log cluster.local {{\n class denial\n}}\nlog . "{{remote}} {{name}} {{rcode}}"\n{CLUSTER}'))
    name = "none.shop.svc.cluster.local."
    packet = dns.message.make_query(name, "A", id=4711, use_edns=0, payload=1232).to_wire()
    request, _ = await site.reply(packet)
    chain = site.router.route(request.query.labels)
    assert chain is not None and not chain.remembers
    chain.say(request, request.query, packet, b"\x85\x83\0\1\0\0\0\1\0\0" + packet[12:], 0.000123)
    assert site.said == [
        f'[INFO] 10.244.9.9:40000 - 4711 "A IN {name} udp {len(packet)} false 1232" NXDOMAIN qr,aa,rd,ra {len(packet)}'
        " 0.000123000s\n",
        f"[INFO] 10.244.9.9 {name} NXDOMAIN\n",
    ]


async def test_a_change_of_the_cluster_is_seen_by_every_chain() -> None:
    """The book is one; views of it are never behind."""
    site = Site(block("kubernetes a", "a") + block("kubernetes b", "b"))
    site.book.apply(Delta(changed=(ServiceRecords("shop", "new", (bytes((10, 96, 9, 9)),)),)))
    for zone in ("a", "b"):
        assert await answers(site, f"new.shop.svc.{zone}.") == [f"new.shop.svc.{zone}. 5 IN A 10.96.9.9"]
    assert BRIEFLY != WHILE
