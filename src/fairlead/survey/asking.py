"""Real questions from within a pod's (or node's) namespace: DNS queries, and the requests of `--probe`.

For a thread inside the namespace. Invariant: bounded in time; a failure is an answer.
"""

from __future__ import annotations

import errno
import secrets
import socket
import time
from collections.abc import Iterable

from fairlead.dns import message as wire
from fairlead.dns.names import text_address, text_name, wire_name
from fairlead.explain.evidence import Attempt, DNSAnswer
from fairlead.explain.scene import host
from fairlead.linux.conntrack import ConntrackSocket

DNS_TIMEOUT = 0.7
PROBE_TIMEOUT = 1.5
_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def look_up(names: Iterable[str], servers: tuple[str, ...], family: str) -> tuple[DNSAnswer, ...]:
    """Ask as a resolver does: each name in turn, each server until one answers; stop at the first that has it."""
    said: list[DNSAnswer] = []
    silent: set[str] = set()
    for name in names:
        for server in servers:
            if server in silent:
                continue
            answer = query(server, name, family)
            said.append(answer)
            if answer.rcode in ("NOERROR", "NXDOMAIN"):
                break
            if answer.rcode in ("no answer", "refused", "unreachable"):
                silent.add(server)
        if said and said[-1].rcode == "NOERROR" and (said[-1].addresses or said[-1].alias):
            break
        if len(silent) == len(servers):
            break
    return tuple(said)


def query(server: str, name: str, family: str = "IPv4", port: int = 53) -> DNSAnswer:
    """One question, asked at most twice."""
    start = time.monotonic()
    kind = wire.AAAA if family == "IPv6" else wire.A
    try:
        question = wire.Question(wire_name(name), kind)
    except ValueError:
        return DNSAnswer(server, name, "NXDOMAIN")
    number = secrets.randbelow(65536)
    packet = wire.render_message(wire.Message(number, wire.RD, (question,)))
    rcode = "no answer"
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(DNS_TIMEOUT)
        try:
            asking.connect((server, port))
            for _ in range(2):
                asking.send(packet)
                try:
                    reply = wire.parse_message(asking.recv(4096))
                except TimeoutError:
                    continue
                if reply.id == number:
                    return _answer(server, name, reply, kind, (time.monotonic() - start) * 1000)
        except ConnectionRefusedError:
            rcode = "refused"
        except wire.FormatError:
            rcode = "no answer"
        except OSError:
            rcode = "unreachable"
    return DNSAnswer(server, name, rcode, milliseconds=(time.monotonic() - start) * 1000)


def _answer(server: str, name: str, reply: wire.Message, kind: int, took: float) -> DNSAnswer:
    addresses = tuple(text_address(r.data) for r in reply.answers if r.type == kind)
    alias = next((text_name(r.data) for r in reply.answers if r.type == wire.CNAME), "")
    return DNSAnswer(server, name, _RCODES.get(reply.rcode, str(reply.rcode)), addresses, alias, took)


def connect(address: str, port: int, protocol: str, url_path: str = "", host: str = "") -> tuple[Attempt, int]:
    """One real request; (what came of it, the source port it had)."""
    start = time.monotonic()
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    source_port, outcome, detail = 0, "timeout", ""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as asking:
        asking.settimeout(PROBE_TIMEOUT)
        try:
            asking.bind(("::" if ":" in address else "0.0.0.0", 0))
            source_port = asking.getsockname()[1]
            asking.connect((address, port))
            outcome = "connected"
            if protocol == "UDP":
                asking.send(b"\n")
                asking.settimeout(0.2)
                try:
                    asking.recv(512)
                    outcome = "answered"
                except TimeoutError:
                    outcome = "sent"
            elif url_path:
                asking.sendall(f"GET {url_path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                detail = asking.recv(256).split(b"\r\n")[0].decode(errors="replace")
                outcome = "answered" if detail else "connected"
        except TimeoutError:
            outcome = "connected" if outcome == "connected" else "timeout"
        except ConnectionRefusedError:
            outcome = "refused"
        except OSError as error:
            outcome = "unreachable" if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) else "failed"
            detail = error.strerror or str(error)
    return Attempt(outcome, "", (time.monotonic() - start) * 1000, detail), source_port


def tracked_endpoint(protocol: str, address: str, port: int, source_port: int) -> str:
    """Where connection tracking says the connection went; for a thread in the namespace that translates."""
    number = socket.IPPROTO_UDP if protocol == "UDP" else socket.IPPROTO_TCP
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ConntrackSocket() as table:
        for flow in table.flows(family, number, address):
            if (flow.original.source_port, flow.original.destination_port) == (source_port, port):
                return f"{host(flow.reply.source)}:{flow.reply.source_port}"
    return ""
