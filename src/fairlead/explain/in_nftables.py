"""A packet's way through the table `fairlead`, and the elements and rules that match it, as nft shows them. Pure."""

from __future__ import annotations

import itertools

from fairlead.explain.evidence import NodeKernel
from fairlead.explain.reading import Reading, handle_of
from fairlead.linux.nft.expressions import Verdict
from fairlead.linux.nft.objects import Element, TableState
from fairlead.linux.nft.text import render_rule
from fairlead.proxy.nftables.layout import (
    CLUSTER_IPS,
    NO_ENDPOINT_NODEPORTS,
    NO_ENDPOINTS,
    NODEPORTS,
    SERVICES,
    SHORT_NODEPORTS,
    SHORT_SERVICES,
    SMALL_CLASS,
    SMALL_SERVICES,
    TABLE,
)
from fairlead.proxy.nftables.trace import Packet, trace
from fairlead.proxy.table import Family

_ORDER = (
    CLUSTER_IPS,
    SMALL_SERVICES,
    SERVICES,
    NODEPORTS,
    SHORT_SERVICES,
    SHORT_NODEPORTS,
    NO_ENDPOINTS,
    NO_ENDPOINT_NODEPORTS,
)


def read(kernel: NodeKernel, family: Family, packet: Packet) -> Reading:
    """What the table does with it."""
    state, word = kernel.tables.get(family), "ip6" if family == "IPv6" else "ip"
    if state is None:
        return Reading(missing=f"there is no table {word} {TABLE}")
    try:
        outcomes = trace(state, packet, kernel.addresses)
    except (KeyError, TypeError) as error:
        return Reading(missing=f"table {word} {TABLE} is not whole ({error})")
    return Reading(outcomes, tuple(_quotes(state, kernel, packet)))


def _quotes(state: TableState, kernel: NodeKernel, packet: Packet) -> list[str]:
    long = (packet.destination, packet.protocol, packet.port)
    short = (packet.protocol, packet.port)
    family = "ip6" if ":" in packet.destination else "ip"
    ranks = {name: number for number, name in enumerate(_ORDER)}
    found: list[str] = []
    chains: list[str] = []
    for name, elements in sorted(state.elements.items(), key=lambda item: (ranks.get(item[0], 99), item[0])):
        for key, element in sorted(elements.items(), key=_by_key):
            if _fits(key, long) or _fits(key, short) or (name == CLUSTER_IPS and key == (packet.destination,)):
                found.append(f"{name} {_element(element)}")
                chain = SMALL_CLASS if name == SMALL_SERVICES else getattr(element.data, "chain", "")
                if chain and chain not in chains:
                    chains.append(chain)
    for chain in chains:
        held = state.chains.get(chain)
        words = [f"{chain} {render_rule(family, rule, state.sets)}" for rule in (held.rules if held else ())]
        numbered = enumerate(words)
        for text, alike in itertools.groupby(numbered, key=lambda entry: entry[1]):
            places = [number for number, _ in alike]
            found.append(text + _handles(kernel, family, chain, places))
    return found


def _handles(kernel: NodeKernel, family: str, chain: str, places: list[int]) -> str:
    """The handles of rules that follow each other."""
    first, last = (handle_of(kernel, family, TABLE, chain, place) for place in (places[0], places[-1]))
    if first == last or not last:
        return first
    return f"{first.replace('handle', 'handles')} to {last.split()[-1]}"


def _fits(key: tuple[object, ...], wanted: tuple[object, ...]) -> bool:
    lowered = tuple(k.lower() if isinstance(k, str) else k for k in key[: len(wanted)])
    return lowered == tuple(w.lower() if isinstance(w, str) else w for w in wanted) and len(key) <= len(wanted) + 1


def _by_key(item: tuple[tuple[object, ...], Element]) -> list[tuple[bool, int, str]]:
    """Numbers as numbers, and what else there is by its text."""
    return [(isinstance(k, int), k if isinstance(k, int) else 0, str(k)) for k in item[0]]


def _element(element: Element) -> str:
    key = " . ".join(str(k).lower() for k in element.key)
    comment = f' comment "{element.comment}"' if element.comment else ""
    if element.data is None:
        return f"{{ {key}{comment} }}"
    verdict = isinstance(element.data, Verdict)
    data = str(element.data) if verdict else " . ".join(map(str, element.data))
    return f"{{ {key}{comment} : {data} }}"
