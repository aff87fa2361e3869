"""What an agent says of its node arrives as it was seen."""

from __future__ import annotations

import msgspec
import pytest

from fairlead.explain.evidence import Facts, NodeKernel
from fairlead.survey.wire import NodeDocument, node_document, read_node
from tests.unit.explain.test_modes import iptables_node, ipvs_node

FACTS = Facts("lab", "cluster.test", proxy_mode="ipvs")


@pytest.mark.parametrize("kernel", [iptables_node(1), ipvs_node(2)], ids=["iptables", "ipvs"])
def test_what_is_sent_is_what_is_read(kernel: NodeKernel) -> None:
    """iptables' chains, virtual servers and sets, links and routes; nftables' tables need a kernel."""
    sent = msgspec.json.encode(node_document(FACTS, kernel, {}))
    document = msgspec.json.decode(sent, type=NodeDocument)
    assert document.facts == FACTS
    assert read_node(document) == kernel


def test_a_tape_that_lacks_an_answer_is_refused() -> None:
    """Rather than taken for an empty table."""
    sent = msgspec.json.encode(node_document(FACTS, iptables_node(1), {}))
    document = msgspec.json.decode(sent, type=NodeDocument)
    broken = msgspec.structs.replace(document, tapes={"IPv4": [(1, b"", (b"",))]})
    with pytest.raises(ValueError, match="tape"):
        read_node(msgspec.convert(msgspec.to_builtins(broken), NodeDocument))
