"""Claims and volumes, however their events interleave: none is given away twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.storage import is_bound
from fairlead.controllers import volumebinding

Object = dict[str, Any]
SIZES = st.sampled_from(["1Gi", "2Gi", "3Gi"])


def volume(name: str, size: str, kept_for: str | None) -> Object:
    spec: Object = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}
    if kept_for:
        spec["claimRef"] = {"namespace": "shop", "name": kept_for}
    metadata = {"name": name, "resourceVersion": "1", "uid": name}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Available"}}


def claim(name: str, size: str, asks_for: str | None) -> Object:
    spec: Object = {"resources": {"requests": {"storage": size}}, "accessModes": ["ReadWriteOnce"]}
    spec |= {"volumeMode": "Filesystem", **({"volumeName": asks_for} if asks_for else {})}
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


class Server:
    """The objects, and views of them that lag behind; a write decided on an old version is refused."""

    def __init__(self, objects: list[Object]) -> None:
        self.now = {o["metadata"]["name"]: o for o in objects}
        self.seen = dict(self.now)

    def write(self, obj: Object) -> bool:
        name, version = obj["metadata"]["name"], obj["metadata"]["resourceVersion"]
        if self.now[name]["metadata"]["resourceVersion"] != version:
            return False
        metadata = {**obj["metadata"], "resourceVersion": str(int(version) + 1)}
        self.now[name] = {**obj, "metadata": metadata}
        return True


def serve(server: Server, name: str, how_far: int) -> None:
    """One look at a claim or volume by what is seen; it may be cut off after any write."""
    seen = {n: o for n, o in server.seen.items() if n.startswith("v")}
    obj = server.seen[name]
    if name.startswith("v"):
        decided = volumebinding.plan_volume(obj, server.seen.get((obj["spec"].get("claimRef") or {}).get("name") or ""))
        if decided.unbind:
            server.write(volumebinding.unbound_volume(obj))
        elif decided.phase:
            server.write({**obj, "status": {"phase": decided.phase}})
        return
    bind = volumebinding.plan_claim(obj, seen, None).bind
    if bind is None:
        return
    kept = volumebinding.bound_volume(bind, obj)
    if kept is not bind and not server.write(kept):
        return
    if how_far > 1:
        server.write(volumebinding.bound_claim(obj, kept))


names = st.sampled_from(["c0", "c1", "c2", "v0", "v1", "v2"])


@given(
    sizes=st.lists(SIZES, min_size=6, max_size=6),
    kept=st.sampled_from([None, "c0", "c1"]),
    asks=st.sampled_from([None, "v0", "v1"]),
    steps=st.lists(st.tuples(names, st.integers(1, 2), st.booleans()), max_size=40),
)
def test_each_volume_has_one_claim(
    sizes: list[str], kept: str | None, asks: str | None, steps: list[tuple[str, int, bool]]
) -> None:
    """At every moment; and once everything was seen, the two halves of each binding agree."""
    volumes = [volume(f"v{n}", sizes[n], kept if n == 0 else None) for n in range(3)]
    claims = [claim(f"c{n}", sizes[3 + n], asks if n == 2 else None) for n in range(3)]
    server = Server([*volumes, *claims])
    had: dict[str, str] = {}
    settled = [(name, 2, True) for _ in range(6) for name in ("c0", "v0", "c1", "v1", "c2", "v2")]
    for name, how_far, looks in [*steps, *settled]:
        if looks:
            server.seen = dict(server.now)
        serve(server, name, how_far)
        bound = {n: o["spec"]["volumeName"] for n, o in server.now.items() if n.startswith("c") and is_bound(o)}
        assert len(set(bound.values())) == len(bound)
        assert had.items() <= bound.items()
        had = bound
    for name, has in had.items():
        reference = server.now[has]["spec"]["claimRef"]
        assert (reference["name"], reference["uid"]) == (name, f"uid-{name}")
