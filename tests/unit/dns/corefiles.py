"""Corefiles put in force over the small cluster of `worlds`, without sockets: asking their chains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dns.message

from fairlead.dns.answer import Rotating, finish, read
from fairlead.dns.book import Book
from fairlead.dns.config import Config, load_text
from fairlead.dns.names import packed_address
from fairlead.dns.records import whole
from fairlead.dns.reply import Reply, Request, settled
from fairlead.dns.router import Router
from fairlead.dns.serving import Serving
from tests.unit.dns.worlds import SERIAL, snapshot


def config_of(text: str, environment: Mapping[str, str] | None = None, file: str = "Corefile") -> Config:
    return load_text(text, file, environment or {})


def error_of(text: str, **options: Any) -> str:
    """What is said of a Corefile that is wrong."""
    try:
        config_of(text, **options)
    except ValueError as error:
        return str(error)
    raise AssertionError("the Corefile was taken")


class Site:
    """A Corefile's chains, with a book; the log's lines are in `said`."""

    def __init__(self, text: str, *, synced: bool = True, **options: Any) -> None:
        self.book = Book()
        self.book.apply(whole(snapshot(synced=synced), SERIAL))
        own = packed_address("10.244.0.2")
        assert own is not None
        self.said: list[str] = []
        self.serving = Serving(self.book, (own,), nonce=b"0123456789abcdef", write=self.said.append)
        self.generation = self.serving._built(config_of(text, **options))

    @property
    def router(self) -> Router:
        return next(iter(self.generation.routers.values()))

    async def reply(
        self, packet: bytes, client: str = "10.244.9.9", transport: str = "udp", router: Router | None = None
    ) -> tuple[Request, Reply]:
        query = read(packet)
        assert query is not None and not isinstance(query, bytes)
        chain = (router or self.router).route(query.labels)
        assert chain is not None
        packed = packed_address(client)
        assert packed is not None
        request = Request(query, packed, 40000, transport, packet)
        return request, await settled(chain.handler(request))

    async def ask(
        self, question: str, kind: str = "A", *, client: str = "10.244.9.9", transport: str = "udp", **options: Any
    ) -> Any:
        """The answer as dnspython reads it."""
        message = dns.message.make_query(question, kind, **options)
        return await self.ask_message(message, client=client, transport=transport)

    async def ask_message(self, message: Any, *, client: str = "10.244.9.9", transport: str = "udp") -> Any:
        packet = message.to_wire()
        _, reply = await self.reply(packet, client, transport)
        query = read(packet)
        assert query is not None and not isinstance(query, bytes)
        chain = self.router.route(query.labels)
        assert chain is not None
        value = finish(query, reply, chain.style, tcp=transport != "udp")
        return dns.message.from_wire(packet[:2] + (value.turn() if isinstance(value, Rotating) else value))
