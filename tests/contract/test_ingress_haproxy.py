"""The data plane does what the route table says: a real HAProxy against `table.decide`, and what it can't show."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fairlead.ingress.haproxy.config import section_name
from fairlead.ingress.haproxy.process import DataPlaneError, Refused
from fairlead.ingress.isolate import culprits, without
from fairlead.ingress.patterns import problem
from fairlead.ingress.servers import Wanted, assign
from fairlead.ingress.table import (
    ANY,
    Certificate,
    Frontend,
    Headers,
    Match,
    Mirror,
    Passthrough,
    PathRewrite,
    Redirect,
    Request,
    Route,
    RouteTable,
    Section,
    Trust,
    ValueMatch,
    arrange,
    decide,
)
from tests.contract.ingress_lab import NAMES, Lab, certificate, to
from tests.ports import free_ports

pytestmark = [pytest.mark.xdist_group("ingress-haproxy")]


@pytest_asyncio.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path / "haproxy") as made:
        yield made


def route(section: Section, match: Match | None = None) -> Route:
    return Route(match or Match(), ((1, section),))


_PATHS = ("/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "/A", "/b/x1", "/it's;%20\\x")
_HOSTS = ("a.test", "x.a.test", "y.x.a.test", "A.TEST", "z.test", ".a.test")
_PATTERNS = ("a.test", "x.a.test", "*.a.test", "*.x.a.test", "*.test", ANY)


def _some_match(dice: random.Random) -> Match:
    kind = dice.choice(("Exact", "Prefix", "Prefix", "Regex"))
    path = dice.choice(_PATHS) if kind != "Regex" else dice.choice(("/a/[bc]", "/b/x[0-9]+$", "/(a|b)", "/"))
    conditions = dice.random() < 0.3
    return Match(
        kind,  # type: ignore[arg-type]
        path,
        method=dice.choice(("", "POST")) if conditions else "",
        headers=(ValueMatch("X-Color", "re.", True),) if conditions and dice.random() < 0.5 else (),
        params=(ValueMatch("v", "it's 1"),) if conditions and dice.random() < 0.5 else (),
    )


@pytest.mark.parametrize("deep", [False, True])
async def test_it_routes_as_the_table_says(lab: Lab, deep: bool) -> None:
    """Tables drawn at random, each reached from the one before by whatever way there is."""
    dice = random.Random(7)
    ways = set()
    for round_number in range(8):
        simple = round_number % 2
        routes = []
        for _ in range(dice.randrange(3, 14)):
            match = _some_match(dice)
            if simple and not match.plain:
                continue
            routes.append((dice.choice(_PATTERNS), route(to(dice.choice(NAMES)), match)))
        hosts = arrange(routes, deep)
        ways.add((await lab.serve(hosts, deep)).how)
        port = Frontend("http", lab.port, 80, hosts, deep=deep)
        for _ in range(60):
            method, color, param = (
                dice.choice(("GET", "POST")),
                dice.choice(("", "red", "reddish")),
                dice.random() < 0.5,
            )
            request = Request(
                dice.choice(_HOSTS),
                dice.choice(_PATHS),
                method,
                {"x-color": color} if color else {},
                {"v": "it's 1"} if param else {},
            )
            found = decide(port, request)
            expected = found.destinations[0][1].service.name if found else "404"  # type: ignore[union-attr]
            url = f"{request.host}{request.path}{'?u=2&v=it%27s%201' if param else ''}"
            got = await lab.who(url, method=method, headers={"X-Color": color} if color else {})
            assert got == expected, (request, routes)
    assert "reload" in ways


async def test_plain_routes_come_and_go_without_a_reload(lab: Lab) -> None:
    """For a Service that is served already: by the maps alone, few or very many."""
    first = [("a.test", route(to("a"))), ("b.test", route(to("b")))]
    await lab.serve(arrange(first, False))
    many = [*first, *((f"h{i}.test", route(to("b"), Match(path=f"/p{i}"))) for i in range(700))]
    for routes, urls in (
        ([*first, ("c.test", route(to("a"), Match("Exact", "/x;y")))], {"c.test/x;y": "a"}),
        (many, {"h0.test/p0": "b", "h699.test/p699/x": "b", "h1.test/p0": "404", "c.test/x;y": "404"}),
        (first, {"h0.test/p0": "404", "a.test/": "a", "b.test/": "b"}),
    ):
        assert (await lab.serve(arrange(routes, False))).how == "commands"
        assert {url: await lab.who(url) for url in urls} == urls
    assert (await lab.serve(arrange(first, False))).how == "nothing"


async def test_hosts_in_every_form(lab: Lab) -> None:
    """In any case and with a port; what is no name is nobody's, whatever stands behind its slash."""
    routes = [("a.test", route(to("a"), Match(path="/x"))), ("a.test", route(to("b"), Match("Exact", "/x/y")))]
    await lab.serve(arrange([*routes, ("*.w.test", route(to("c")))], False))
    for host in ("a.test", "A.Test", "a.test:8080", "A.TEST:80"):
        got = [await lab.who(f"{host}{path}") for path in ("/x", "/x/z", "/x/y", "/x/y/", "/x/y/z", "/xy", "/")]
        assert got == ["a", "a", "b", "a", "a", "404", "404"], host
    assert [await lab.who(f"{host}/x") for host in ("W.w.test:1", "w.test", "a.w.w.test")] == ["c", "404", "404"]
    for host in ("a.test/x", "*.w.test/x", "a.test/x/y/?"):
        assert await lab.who("any/z", headers={"Host": host}) == "404"


async def test_endpoints_change_under_requests(lab: Lab) -> None:
    """Two servers in turns behind one route, a hundred requests meanwhile: none fails, each change is by command."""
    hosts = arrange([("a.test", route(to("a")))], False)
    await lab.serve(hosts)
    stop = asyncio.Event()
    answers: list[str] = []

    async def keep_asking() -> None:
        while not stop.is_set():
            answers.append(await lab.who("a.test/"))

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    other = lab.servers["b"]
    for _ in range(10):
        lab.servers["a"], other = other, lab.servers["a"]
        assert (await lab.serve(hosts)).how == "commands"
        seen = len(answers)
        while len(answers) < seen + 10:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    stop.set()
    await asyncio.gather(*asking)
    assert set(answers) == {"a", "b"}


async def test_a_reload_loses_nothing(lab: Lab) -> None:
    """A slow request that was under way is answered by the old process; new ones never wait at a closed door."""
    await lab.serve(arrange([("a.test", route(to("a")))], False))
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nsl")
    await writer.drain()
    asking = [asyncio.create_task(lab.who("a.test/")) for _ in range(30)]
    assert (await lab.serve(arrange([("a.test", route(to("a"))), ("b.test", route(to("b")))], False))).how == "reload"
    writer.write(b"ow")
    assert b'"size":4' in await reader.read()
    writer.close()
    assert set(await asyncio.gather(*asking)) == {"a"}
    assert await lab.who("b.test/") == "b"


async def test_draining_keeps_what_is_under_way(lab: Lab) -> None:
    """An endpoint that ends answers the request it has, and gets no other."""
    section = to("a")
    hosts = arrange([("a.test", route(section))], False)
    await lab.serve(hosts)
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nsl")
    await writer.drain()
    name = section_name(section)
    while f"be={name}" not in await lab.haproxy.ask("show sess"):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    table = RouteTable((Frontend("http", lab.port, 80, hosts),))
    current = lab.haproxy.current
    assert current is not None
    ending = [Wanted("127.0.0.1", lab.servers["a"], drain=True), Wanted("127.0.0.1", lab.servers["b"])]
    places = assign(current.places[name], ending)
    assert places is not None
    from fairlead.ingress.haproxy.config import render

    assert (await lab.haproxy.apply(render(table, {name: places}, lab.settings))).how == "commands"
    assert {await lab.who("a.test/") for _ in range(5)} == {"b"}
    writer.write(b"ow")
    assert b'"name":"a"' in await reader.read()
    writer.close()


async def test_certificates_by_server_name(lab: Lab) -> None:
    """Each name its own, a wildcard's for one label, else the default; changed, added and removed by command."""
    hosts = arrange([(ANY, route(to("a")))], False)
    default = Certificate("default", certificate("default"))
    one = Certificate("one", certificate("one"), ("a.test", "*.w.test"))
    await lab.serve(hosts, certificates=(default, one))
    names = ("a.test", "x.w.test", "x.y.w.test", "other.test", "")
    assert [await lab.subject(n) for n in names] == ["one", "one", "default", "default", "default"]
    renewed = Certificate("one", certificate("renewed"), one.names)
    two = Certificate("two", certificate("two"), ("b.test",))
    assert (await lab.serve(hosts, certificates=(default, renewed, two))).how == "commands"
    assert [await lab.subject(n) for n in ("a.test", "x.w.test", "b.test")] == ["renewed", "renewed", "two"]
    assert (await lab.serve(hosts, certificates=(default, two))).how == "commands"
    assert [await lab.subject(n) for n in ("a.test", "b.test")] == ["default", "two"]
    moved = Certificate("two", two.pem, ("c.test",))
    assert (await lab.serve(hosts, certificates=(default, moved))).how == "commands"
    assert [await lab.subject(n) for n in ("b.test", "c.test")] == ["default", "two"]


async def test_what_is_refused_leaves_the_rest_in_place(lab: Lab) -> None:
    """A configuration that HAProxy does not take is said, and the one before serves on; the next good one is taken."""
    await lab.serve(arrange([("a.test", route(to("a")))], False))
    bad = arrange([("a.test", route(to("a"))), ("b.test", route(to("b", allow=("nonsense/99",))))], False)
    with pytest.raises(DataPlaneError, match="nonsense/99"):
        await lab.serve(bad)
    assert await lab.who("a.test/") == "a"
    await lab.serve(arrange([("b.test", route(to("b")))], False))
    assert await lab.who("b.test/") == "b"


async def test_it_is_started_again_when_killed(lab: Lab) -> None:
    """With the state it had."""
    import os
    import signal

    await lab.serve(arrange([("a.test", route(to("a")))], False))
    process = lab.haproxy._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    for _ in range(3000):
        try:
            if lab.haproxy._process is not process and await lab.who("a.test/") == "a":
                return
        except OSError:
            pass
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come back")


async def test_what_is_done_to_requests(lab: Lab) -> None:
    """Headers, hosts, paths; what a client says of where it comes from is not believed."""
    changed = to(
        "a",
        request=Headers(set=(("X-Set", "50% 'q'"),), add=(("X-Add", "two"),), remove=("X-Gone",)),
        response=Headers(set=(("X-From", "us"),)),
        host="inside.test",
    )
    await lab.serve(arrange([("a.test", route(changed))], False))
    given = {"X-Set": "old", "X-Add": "one", "X-Gone": "x", "X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    _, said, headers = await lab.ask("a.test/", headers=given)
    got = said["headers"]
    assert (got["X-Set"], got["Host"], headers["X-From"]) == ("50% 'q'", "inside.test", "us")
    assert "X-Gone" not in got and "Forwarded" not in got
    assert (got["X-Forwarded-For"], got["X-Real-Ip"]) == ("127.0.0.1", "127.0.0.1")
    assert (got["X-Forwarded-Proto"], got["X-Forwarded-Port"], got["X-Forwarded-Host"]) == ("http", "80", "a.test")


REWRITES = [
    (PathRewrite("full", "/x"), "/app/y?q=1", "/x?q=1"),
    (PathRewrite("prefix", "/v1", "/app"), "/app", "/v1"),
    (PathRewrite("prefix", "/v1", "/app"), "/app/", "/v1/"),
    (PathRewrite("prefix", "/v1/", "/app/"), "/app/y?q=1", "/v1/y?q=1"),
    (PathRewrite("prefix", "/", "/app"), "/app/y", "/y"),
    (PathRewrite("prefix", "/", "/app"), "/app", "/"),
    (PathRewrite("prefix", "/v1", "/"), "/app", "/v1/app"),
    (PathRewrite("regex", "/\\2", "/app(/|$)(.*)", True), "/APP/y/z", "/y/z"),
]


async def test_paths_are_rewritten(lab: Lab) -> None:
    """Whole, by prefix, by groups of an expression; the query stays."""
    routes = [(f"h{i}.test", route(to("a", rewrite=rewrite))) for i, (rewrite, _, _) in enumerate(REWRITES)]
    await lab.serve(arrange(routes, False))
    got = [(await lab.ask(f"h{i}.test{asked}"))[1]["path"] for i, (_, asked, _) in enumerate(REWRITES)]
    assert got == [expected for _, _, expected in REWRITES]


REDIRECTS = [
    (Redirect(308, "https"), "https://{h}/a?q=1"),
    (Redirect(301, host="other.test"), "http://other.test/a?q=1"),
    (Redirect(302, "https", "other.test", 8443), "https://other.test:8443/a?q=1"),
    (Redirect(302, port=8080), "http://{h}:8080/a?q=1"),
    (Redirect(303, path=PathRewrite("full", "/x")), "http://{h}/x?q=1"),
    (Redirect(307, path=PathRewrite("prefix", "/b", "/a")), "http://{h}/b?q=1"),
    (Redirect(301, to="https://there.test/50%25"), "https://there.test/50%25"),
]


async def test_redirects(lab: Lab) -> None:
    """What is not given stays as it was asked."""
    routes = [(f"h{i}.test", route(Section(redirect=redirect))) for i, (redirect, _) in enumerate(REDIRECTS)]
    await lab.serve(arrange(routes, False))
    got = []
    for index in range(len(REDIRECTS)):
        status, _, headers = await lab.ask(f"h{index}.test/a?q=1")
        got.append((status, headers["Location"]))
    assert got == [(r.code, url.replace("{h}", f"h{i}.test")) for i, (r, url) in enumerate(REDIRECTS)]


async def test_weights(lab: Lab) -> None:
    """Shares of requests; a weight of nothing gets nothing, whichever way there are several splits."""
    nine = Route(Match(), ((90, to("a")), (10, to("b")), (0, to("c"))))
    even = Route(Match(path="/even"), ((1, to("c")), (1, to("d")), (2, Section(status=500))))
    await lab.serve(arrange([("a.test", nine), ("a.test", even)], False))
    first = [await lab.who("a.test/") for _ in range(300)]
    assert set(first) == {"a", "b"} and 230 < first.count("a") < 298
    second = [await lab.who("a.test/even") for _ in range(200)]
    assert set(second) == {"c", "d", "500"} and 60 < second.count("500") < 140


async def test_sources_and_cookies(lab: Lab) -> None:
    """Others than the allowed are refused; a cookie keeps a client at its endpoint."""
    routes = [
        ("in.test", route(to("a", allow=("127.0.0.0/8",)))),
        ("out.test", route(to("a", allow=("10.0.0.0/8", "fd00::/8")))),
        ("sticky.test", route(to("a", cookie="STICK"))),
    ]
    await lab.serve(arrange(routes, False))
    assert [await lab.who(f"{h}.test/") for h in ("in", "out")] == ["a", "403"]
    _, _, headers = await lab.ask("sticky.test/")
    assert headers["Set-Cookie"].startswith("STICK=")


async def test_websockets_and_large_bodies(lab: Lab) -> None:
    """Both ways for as long as they like; a body larger than any buffer."""
    await lab.serve(arrange([("a.test", route(to("a")))], False))
    url = f"http://127.0.0.1:{lab.port}/socket"
    async with lab.client.ws_connect(url, headers={"Host": "a.test"}) as stream:
        for text in ("one", "two"):
            await stream.send_str(text)
            assert (await stream.receive()).data == f"a: {text}"
    _, said, _ = await lab.ask("a.test/", method="POST", data=b"x" * 5_000_000)
    assert said["size"] == 5_000_000


async def test_tls_passthrough(lab: Lab, tmp_path: Path) -> None:
    """By server name, unopened: the server's own certificate is seen; a name that nobody has is turned away."""
    import ssl

    for name in ("a", "b"):
        file = tmp_path / f"{name}.pem"
        file.write_text(certificate(f"server-{name}"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        lab.servers[name] = await lab.start_server(name, context)
    ways = (
        Passthrough("a.test", ((1, to("a", tcp=True)),)),
        Passthrough("*.w.test", ((1, to("b", tcp=True)),)),
    )
    port = Frontend("tls", lab.secure, 443, deep=True, passthrough=ways)
    await lab.haproxy.apply(lab.configuration(RouteTable((port,))))
    names = ("a.test", "x.w.test", "x.y.w.test", "none.test", "")
    assert [await lab.subject(n) for n in names] == ["server-a", "server-b", "server-b", "", ""]


async def test_requests_are_mirrored(lab: Lab) -> None:
    """As the backend gets them, of any method, with their bodies, to each mirror; the client sees its backend alone."""
    mirrors = (Mirror(to("b")), Mirror(to("c"), (0, 100)), Mirror(to("d")))
    changes = Headers(set=(("X-Set", "yes"),))
    section = to("a", mirrors=mirrors, request=changes, rewrite=PathRewrite("full", "/x"))
    await lab.serve(arrange([("a.test", route(section)), ("c.test", route(to("c")))], False))
    body = bytes(range(256)) * 1200
    for method, data in (("GET", None), ("POST", body), ("PATCH", b"small"), ("DELETE", None), ("OPTIONS", None)):
        status, said, _ = await lab.ask("a.test/y?q=%20", method, data=data, headers={"X-Two": "1, 2"})
        assert (status, said["name"], said["size"]) == (200, "a", len(data or b""))
        for name in ("b", "d"):
            copy = await lab.asked(name)
            assert (copy["method"], copy["path"], copy["digest"]) == (method, "/x?q=%20", said["digest"])
            kept = ("X-Set", "X-Two", "Host", "X-Forwarded-For", "User-Agent")
            assert {name: copy["headers"].get(name) for name in kept} == {n: said["headers"].get(n) for n in kept}
            assert not [name for name in copy["headers"] if "Fairlead" in name]
    assert lab.log["c"].empty()


async def test_a_client_does_not_choose_the_mirror(lab: Lab) -> None:
    """By the headers that copies are sorted by."""
    routes = [("a.test", route(to("a", mirrors=(Mirror(to("b")),)))), ("c.test", route(to("c")))]
    await lab.serve(arrange(routes, False))
    given = {"X-Fairlead-Mirror": section_name(to("c")), "X-Fairlead-Method": "DELETE"}
    assert await lab.who("a.test/", headers=given) == "a"
    assert (await lab.asked("b"))["method"] == "GET" and lab.log["c"].empty()


async def test_grpc_calls_are_mirrored(lab: Lab) -> None:
    """To a server that speaks HTTP/2 only, and sees the same message; the client has its answer from the other."""
    import concurrent.futures

    import grpc

    seen: dict[str, list[bytes]] = {"a": [], "b": []}
    servers = []
    for name in ("a", "b"):

        def answer(request: bytes, _: grpc.ServicerContext, name: str = name) -> bytes:
            seen[name].append(request)
            return name.encode()

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Do": handler}),))
        lab.servers[name] = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
    section = to("a", protocol="h2c", mirrors=(Mirror(to("b", protocol="h2c")),))
    await lab.serve(arrange([("a.test", route(section))], False))
    options = [("grpc.default_authority", "a.test")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{lab.port}", options=options) as channel:
        assert await channel.unary_unary("/t.T/Do")(b"one", timeout=30) == b"a"
    async with asyncio.timeout(30):
        while not seen["b"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert seen == {"a": [b"one"], "b": [b"one"]}
    for server in servers:
        server.stop(None)


async def test_a_share_of_requests_is_mirrored(lab: Lab) -> None:
    """About as many as asked for."""
    await lab.serve(arrange([("a.test", route(to("a", mirrors=(Mirror(to("b"), (1, 3)),))))], False))
    for _ in range(300):
        assert await lab.who("a.test/") == "a"
    for _ in range(50):
        await lab.asked("b")
    assert lab.log["b"].qsize() < 110


async def test_what_is_not_mirrored(lab: Lab) -> None:
    """A body too large for a copy, a WebSocket: both work as ever, and the next request is mirrored again."""
    await lab.serve(arrange([("a.test", route(to("a", mirrors=(Mirror(to("d")),))))], False))
    _, said, _ = await lab.ask("a.test/large", method="POST", data=b"x" * 3_000_000)
    assert said["size"] == 3_000_000
    async with lab.client.ws_connect(f"http://127.0.0.1:{lab.port}/socket", headers={"Host": "a.test"}) as stream:
        await stream.send_str("one")
        assert (await stream.receive()).data == "a: one"
    assert await lab.who("a.test/next") == "a"
    assert (await lab.asked("d"))["path"] == "/next"


async def test_a_mirror_harms_nobody(lab: Lab) -> None:
    """One that refuses, one that never answers: however many requests there are, each has its answer."""
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    lab.servers["b"] = silent.sockets[0].getsockname()[1]
    (lab.servers["c"],) = free_ports(1)
    await lab.serve(arrange([("a.test", route(to("a", mirrors=(Mirror(to("b")), Mirror(to("c"))))))], False))
    for _ in range(200):  # more than there are copies under way at most
        assert await lab.who("a.test/", method="POST", data=b"x") == "a"
    silent.close()


async def test_backends_that_must_be_trusted(lab: Lab, tmp_path: Path) -> None:
    """By who signed their certificate and by the name in it, and asked for by that name; others get no request."""
    import ssl

    ours, theirs = certificate("ours"), certificate("theirs")
    seen: list[str | None] = []
    file = tmp_path / "server.pem"
    file.write_text(certificate("inside.test", "other.test", authority=ours))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.sni_callback = lambda _, name, __: seen.append(name)
    lab.servers["a"] = await lab.start_server("a", context)
    trusts = {
        "right.test": Trust("inside.test", ours[: ours.index("-----BEGIN PRIVATE")]),
        "other.test": Trust("other.test", ours[: ours.index("-----BEGIN PRIVATE")]),
        "name.test": Trust("else.test", ours[: ours.index("-----BEGIN PRIVATE")]),
        "signed.test": Trust("inside.test", theirs[: theirs.index("-----BEGIN PRIVATE")]),
        "system.test": Trust("inside.test"),
    }
    routes = [(host, route(to("a", protocol="https", trust=trust))) for host, trust in trusts.items()]
    await lab.serve(arrange(routes, False))
    got = dict(zip(trusts, await asyncio.gather(*(lab.who(f"{host}/") for host in trusts)), strict=True))
    refused = dict.fromkeys(("name.test", "signed.test", "system.test"), "503")
    assert got == {"right.test": "a", "other.test": "a", **refused}
    assert {"inside.test", "other.test", "else.test"} <= set(seen) and lab.log["a"].qsize() == 2


async def test_what_is_refused_is_traced(lab: Lab) -> None:
    """An expression that is fine but for its size: its Ingress is found, the others are served."""
    routes = [(f"h{n}.test", Route(Match(), ((1, to("a")),), f"Ingress t/{n}")) for n in range(20)]
    large = Match("Regex", "/a{70000}")
    assert problem(large.path) == ""
    routes[13] = ("h13.test", Route(large, ((1, to("b")),), "Ingress t/13"))
    table = RouteTable((Frontend("http", lab.port, 80, arrange(routes, False)),))
    with pytest.raises(Refused):
        await lab.haproxy.apply(lab.configuration(table))

    async def refusal(tried: RouteTable) -> str:
        return await lab.haproxy.refusal(lab.configuration(tried))

    found = await culprits(table, refusal)
    assert list(found) == ["Ingress t/13"] and "regex" in found["Ingress t/13"].why
    assert str(lab.settings.directory) not in found["Ingress t/13"].why
    await lab.haproxy.apply(lab.configuration(without(table, found)))
    assert [await lab.who(f"h{n}.test/") for n in (0, 12, 13, 14, 19)] == ["a", "a", "404", "a", "a"]
