"""Tokens of pods' service accounts: kept for four fifths of their life, then asked for anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from fairlead.api import times
from fairlead.kubelet.options import KubeletOptions
from fairlead.kubelet.surroundings import Surroundings

POD = {"metadata": {"name": "p", "namespace": "default", "uid": "1"}, "spec": {"serviceAccountName": "web"}}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Server:
    """Gives tokens that are numbered, for as long as was asked."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def create_subresource(self, _: Any, name: str, __: str, body: dict[str, Any], ___: str) -> dict[str, Any]:
        self.asked.append((name, body["spec"]))
        expires = self.now + timedelta(seconds=body["spec"]["expirationSeconds"])
        return {"status": {"token": f"t{len(self.asked)}", "expirationTimestamp": times.render(expires)}}


async def test_a_token_is_renewed_before_it_ends() -> None:
    server = Server()
    options = KubeletOptions("n1", "192.0.2.1", Path("/nowhere"), Path("/nowhere"))
    anything = cast("Any", None)
    around = Surroundings(
        options,
        cast("Any", server),
        anything,
        anything,
        anything,
        services=anything,
        allocatable={},
        now=lambda: server.now,
    )

    async def token(after: int, audience: str = "") -> str:
        server.now = BEGIN + timedelta(seconds=after)
        return (await around.fetch.token(POD, audience, 600))[0]

    assert [await token(after) for after in (0, 1, 479, 480, 959, 961)] == ["t1", "t1", "t1", "t2", "t2", "t3"]
    assert await token(961, "vault") == "t4", "another audience, another token"
    assert server.asked[0] == (
        "web",
        {"expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "1"}},
    )
    assert server.asked[3][1]["audiences"] == ["vault"]
    around.forget_tokens("1")
    assert await token(962) == "t5"
