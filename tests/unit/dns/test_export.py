"""The zone as a list: complete, and given away only to those it is for."""

from __future__ import annotations

import dns.message
import pytest

from fairlead.dns.export import records, reverse_records
from fairlead.dns.presentation import record, render
from fairlead.dns.reply import Transfer
from tests.unit.dns.corefiles import Site
from tests.unit.dns.test_zone import ANSWERS
from tests.unit.dns.worlds import rows, zone


def test_every_answer_is_in_the_list() -> None:
    """All rows of the zone's tables but those of pods' names, which have no end; and each once."""
    where = zone()
    found = [render(entry).lower() for entry in [*records(where), *reverse_records(where)]]
    assert len(found) == len(set(found))
    for question, kind, answer, _ in ANSWERS:
        if ".pod." in question or kind == "SOA" or " cname " in answer.lower():
            continue
        missing = {row.lower() for row in rows(answer)} - set(found)
        assert not {row for row in missing if "_" not in row and " srv " not in row}, question


def test_the_text_of_a_record_is_read_again() -> None:
    """render and record are a pair."""
    where = zone()
    for entry in [where.soa(), *records(where), *reverse_records(where)]:
        assert record(render(entry)) == entry


async def test_a_cluster_zone_is_transferred_to_those_it_is_for() -> None:
    """With `transfer`, as CoreDNS."""
    site = Site("cluster.local {\n kubernetes\n transfer {\n to 10.244.9.9\n }\n}\n")
    packet = dns.message.make_query("cluster.local", "AXFR").to_wire()
    with pytest.raises(Transfer) as transfer:
        await site.reply(packet, transport="tcp")
    assert {"web", "db"} <= {entry.name[1 : 1 + entry.name[0]].decode() for entry in transfer.value.records}
