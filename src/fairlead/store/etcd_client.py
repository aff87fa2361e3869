"""Calls to an etcd server: where it is, how it is trusted, and what its failures mean.

Stands between etcd.py and gRPC. Invariant: whatever goes wrong comes out as one of the store's own exceptions or as
`Unreachable`, in words that name the server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from fairlead.store import etcd_wire as wire
from fairlead.store.interface import StoreFailed

if TYPE_CHECKING:
    import grpc.aio

DEFAULT_PREFIX = "/fairlead"
"""Below it are all of fairlead's keys."""

_DEFAULT_PORT = 2379


class Unreachable(Exception):
    """No answer: the server is away, has no leader, or takes too long. What was asked may have happened."""


class Gone(Exception):
    """The asked-for revision is compacted."""


class Trust(msgspec.Struct, frozen=True):
    """TLS to etcd: paths of PEM files. Upstream's flags are `--etcd-cafile`, `--etcd-certfile`, `--etcd-keyfile`."""

    ca_file: str
    cert_file: str = ""
    key_file: str = ""


class Address(msgspec.Struct, frozen=True):
    """Where etcd is, and below which key fairlead may write there."""

    hosts: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `etcd://host[:port][,host[:port]…][/prefix]`. ValueError says what is wrong with it."""
        scheme, colon, rest = text.partition("://")
        if scheme != "etcd" or not colon:
            raise ValueError(f"{text!r} is no etcd address: write etcd://HOST:PORT")
        names, _, prefix = rest.partition("/")
        hosts = []
        for name in names.split(","):
            try:
                parts = urlsplit(f"//{name}")
                host, port = parts.hostname, parts.port or _DEFAULT_PORT
            except ValueError as error:
                raise ValueError(f"{text!r} is no etcd address: {name!r}: {error}") from None
            if not host or parts.username is not None:
                raise ValueError(f"{text!r} is no etcd address: {name!r} names no host; write etcd://HOST:PORT")
            hosts.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        prefix = "/" + prefix.strip("/") if prefix.strip("/") else DEFAULT_PREFIX
        return cls(tuple(hosts), prefix)

    def __str__(self) -> str:
        return ",".join(self.hosts)


def _target(hosts: tuple[str, ...]) -> str:
    """gRPC's name for the servers: several only as plain addresses."""
    if len(hosts) == 1:
        return f"dns:///{hosts[0]}"
    kind = "ipv6" if hosts[0].startswith("[") else "ipv4"
    return f"{kind}:" + ",".join(hosts)


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


class EtcdClient:
    """One connection to one of the servers, made again when it breaks. `timeout`: seconds for one call.

    `relay`: the path of a Unix socket that leads there, for a process in another network namespace.
    """

    def __init__(self, address: Address, trust: Trust | None = None, *, timeout: float = 5.0, relay: str = "") -> None:
        try:
            import grpc.aio
        except ImportError:
            raise StoreFailed("--store etcd://… needs the package grpcio: pip install 'fairlead[etcd]'") from None
        self.address, self._timeout, self._grpc = address, timeout, grpc
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.lb_policy_name", "round_robin" if len(address.hosts) > 1 else "pick_first"),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        target = _target(address.hosts)
        if relay:
            target = f"unix:{relay}"
            name = address.hosts[0].rpartition(":")[0].strip("[]")
            options += [("grpc.default_authority", address.hosts[0]), ("grpc.ssl_target_name_override", name)]
        if trust is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            try:
                credentials = grpc.ssl_channel_credentials(
                    _read(trust.ca_file), _read(trust.key_file), _read(trust.cert_file)
                )
            except OSError as error:
                raise StoreFailed(f"TLS to etcd at {address}: {error.filename}: {error.strerror}") from None
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        self._range = self._channel.unary_unary("/etcdserverpb.KV/Range")
        self._txn = self._channel.unary_unary("/etcdserverpb.KV/Txn")
        self._compact = self._channel.unary_unary("/etcdserverpb.KV/Compact")
        self._watch = self._channel.stream_stream("/etcdserverpb.Watch/Watch")

    async def range(self, request: bytes) -> wire.Range:
        """Read. Linearizable: it sees every commit that anyone was told of before the call."""
        return wire.parse_range(await self._call(self._range, request))

    async def txn(self, request: bytes) -> wire.Txn:
        """Compare and write."""
        return wire.parse_txn(await self._call(self._txn, request))

    async def compact(self, revision: int) -> None:
        """Forget what is older. Gone if that is done already."""
        await self._call(self._compact, wire.compaction_request(revision))

    async def watch(self, request: bytes) -> AsyncGenerator[wire.Watched, None]:
        """The messages of one watch, until it ends. Raises Unreachable."""
        stream = self._watch(wait_for_ready=False)
        try:
            await stream.write(request)
            while (message := await stream.read()) is not self._grpc.aio.EOF:
                yield wire.parse_watched(message)
        except (self._grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._failure(error) from None
        finally:
            stream.cancel()
            with contextlib.suppress(self._grpc.aio.AioRpcError):
                await stream.code()
        raise Unreachable(f"etcd at {self.address} ended a watch")

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()
        await asyncio.sleep(0.01)  # gRPC tells the loop of what was cancelled a moment later; the loop may end with us

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Any, Any], request: bytes) -> bytes:
        try:
            answer: bytes = await method(request, timeout=self._timeout)
        except self._grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        except self._grpc.aio.UsageError as error:  # the channel was closed meanwhile
            raise Unreachable(f"etcd at {self.address}: {error}") from None
        return answer

    def _failure(self, error: Any) -> Exception:
        codes = self._grpc.StatusCode
        code = error.code() if hasattr(error, "code") else codes.UNAVAILABLE
        details = (error.details() if hasattr(error, "details") else "") or str(error)
        if "has been compacted" in details:
            return Gone(details)
        if code in {codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED, codes.CANCELLED, codes.UNKNOWN, codes.INTERNAL}:
            return Unreachable(f"etcd at {self.address} can't be reached: {details}")
        if "database space exceeded" in details:
            return StoreFailed(
                f"etcd at {self.address}: {details}; compact and defragment it (etcdctl compact, etcdctl defrag), then "
                "etcdctl alarm disarm"
            )
        return StoreFailed(f"etcd at {self.address} refused: {details}")
