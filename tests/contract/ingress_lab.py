"""A real HAProxy on loopback between a client and servers that say what they were asked."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, TCPConnector, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairlead.discovery.model import ServiceKey
from fairlead.ingress.haproxy.config import Configuration, Settings, render
from fairlead.ingress.haproxy.process import Applied, Haproxy, find_program
from fairlead.ingress.servers import Place, Wanted, assign, fresh
from fairlead.ingress.table import Certificate, Frontend, Host, RouteTable, Section
from tests.ports import free_ports

NAMES = ("a", "b", "c", "d")


def to(name: str, **given: Any) -> Section:
    """The section of a Service of that name."""
    return Section(ServiceKey("t", name), "", 80, **given)


def certificate(*names: str, authority: str = "") -> str:
    """One for these names, with its key, in PEM: signed by an authority's key, or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    signing = key
    if authority:
        issuer = x509.load_pem_x509_certificate(authority.encode()).subject
        loaded = serialization.load_pem_private_key(authority[authority.index("-----BEGIN PRIVATE") :].encode(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=not authority, path_length=None), critical=True)
        .sign(signing, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (made.public_bytes(serialization.Encoding.PEM) + private).decode()


class Lab:
    """Servers a, b, c, d; an HAProxy that `serve` configures; a client."""

    def __init__(self, directory: Path) -> None:
        self.port, self.secure, self.raw = free_ports(3)
        self.settings = Settings(
            directory=str(directory), address="127.0.0.1", threads=1, stop_ms=1000, resolvers=False
        )
        self.haproxy = Haproxy(self.settings, find_program())
        self.servers: dict[str, int] = {}
        self.places: dict[str, tuple[Place, ...]] = {}
        self.log: dict[str, asyncio.Queue[dict[str, Any]]] = {name: asyncio.Queue() for name in NAMES}
        self._stack = contextlib.AsyncExitStack()
        self.client: ClientSession

    async def __aenter__(self) -> Lab:
        for name in NAMES:
            self.servers[name] = await self.start_server(name)
        self.client = await self._stack.enter_async_context(ClientSession(connector=TCPConnector(force_close=True)))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
        await self.haproxy.stop()

    async def start_server(self, name: str, context: ssl.SSLContext | None = None) -> int:
        """One that answers with its name and what it was asked. Returns its port."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Upgrade"):
                stream = web.WebSocketResponse()
                await stream.prepare(request)
                async for message in stream:
                    await stream.send_str(f"{name}: {message.data}")
                return stream
            body = await request.read()
            headers = {str(key).title(): value for key, value in request.headers.items()}
            said = {"name": name, "path": request.raw_path, "method": request.method, "headers": headers}
            said |= {"size": len(body), "digest": hashlib.sha256(body).hexdigest()}
            self.log[name].put_nowait(said)
            return web.Response(body=orjson.dumps(said), headers={"X-From": name})

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{rest:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        return int(runner.addresses[0][1])

    def configuration(self, table: RouteTable) -> Configuration:
        """The table with each Service's server behind it."""
        places: dict[str, tuple[Place, ...]] = {}
        for section, name in table.sections().items():
            if section.service is not None:
                there = [Wanted("127.0.0.1", self.servers[section.service.name])]
                kept = assign(self.places[name], there) if name in self.places else None
                places[name] = kept or fresh(there)
        self.places = places
        return render(table, places, self.settings)

    async def serve(
        self, hosts: Iterable[Host], deep: bool = False, certificates: tuple[Certificate, ...] = ()
    ) -> Applied:
        """These hosts on the plain port, and with certificates on the secure one, too."""
        listed = tuple(hosts)
        frontends = [Frontend("http", self.port, 80, listed, deep=deep)]
        if certificates:
            secure = Frontend("https", self.secure, 443, listed, tls=True, certificates=certificates, deep=deep)
            frontends.append(secure)
        return await self.haproxy.apply(self.configuration(RouteTable(tuple(frontends))))

    async def ask(self, url: str, method: str = "GET", **given: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, what the server says (or nothing) and the headers of a request for `host/path`."""
        host, slash, rest = url.partition("/")
        headers = {"Host": host, **given.pop("headers", {})}
        from yarl import URL

        target = URL(f"http://127.0.0.1:{self.port}{slash}{rest}", encoded=True)
        async with self.client.request(method, target, headers=headers, allow_redirects=False, **given) as response:
            body = await response.read()
            said = orjson.loads(body) if body.startswith(b"{") else {}
            return response.status, said, {key.title(): value for key, value in response.headers.items()}

    async def who(self, url: str, **given: Any) -> str:
        """The name of the server that answers, or the status."""
        status, said, _ = await self.ask(url, **given)
        return said.get("name") or str(status)

    async def asked(self, name: str) -> dict[str, Any]:
        """What a server was asked and nobody heard of yet, once it was."""
        async with asyncio.timeout(30):
            return await self.log[name].get()

    async def subject(self, name: str) -> str:
        """The common name of the certificate that is shown for a server name."""
        process = await asyncio.create_subprocess_exec(
            "openssl",
            *(
                "s_client",
                "-connect",
                f"127.0.0.1:{self.secure}",
                *(("-servername", name) if name else ("-noservername",)),
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
        found = [line for line in out.decode(errors="replace").splitlines() if line.startswith("subject=")]
        return found[0].split("CN = ")[-1].split("CN=")[-1] if found else ""


@contextlib.asynccontextmanager
async def lab(directory: Path) -> AsyncIterator[Lab]:
    """A lab in a directory of its own."""
    async with Lab(directory) as made:
        yield made
