"""What `nft monitor trace` says of a request, made short."""

from __future__ import annotations

from fairlead.survey.tracing import condense

SAID = """trace id aa ip fairlead-trace o packet: iif "fl0" ip saddr 10.0.0.1 tcp sport 4001 tcp dport 80
trace id aa ip fairlead-trace o rule ip daddr 10.96.0.5 tcp dport 80 meta nftrace set 1 (verdict continue)
trace id aa ip fairlead prerouting packet: iif "fl0" ip saddr 10.0.0.1 tcp sport 4001 tcp dport 80
trace id aa ip fairlead prerouting rule ip daddr . meta l4proto . th dport vmap @svc (verdict goto class-2)
trace id bb ip fairlead prerouting packet: iif "fl0" ip saddr 10.0.0.9 tcp sport 9999 tcp dport 80
trace id bb ip fairlead prerouting rule drop (verdict drop)
trace id aa ip fairlead class-2 rule dnat to 10.0.0.3:8080 (verdict accept)
nonsense
"""


def test_only_this_requests_rules_are_told() -> None:
    """By its source port; without the table that marks, and without the packets' headers."""
    assert condense(SAID, 4001) == (
        "ip fairlead prerouting rule ip daddr . meta l4proto . th dport vmap @svc (verdict goto class-2)",
        "ip fairlead class-2 rule dnat to 10.0.0.3:8080 (verdict accept)",
    )
    assert condense("", 1) == ()
