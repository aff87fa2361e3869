"""Who leads, by a Lease: the decision alone. Pure.

In: the Lease as it was read, what was seen of it before, and two clocks. Out: what is known now, and the Lease to
write, or none. Invariant: nobody takes a Lease whose holder was seen to renew it within its duration, by our own clock:
the times written in it are never compared with ours. Source: client-go's `tools/leaderelection`.
"""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

Object = dict[str, Any]

JITTER = 1.2
"""A retry takes up to so much longer."""


class Timing(msgspec.Struct, frozen=True):
    """Seconds. Upstream's names and defaults: a leader that has not renewed for `renew_deadline` steps down, which is
    before anyone takes over after `lease_duration`; both act every `retry_period`."""

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def problem(self) -> str:
        """Why these can't be, in upstream's words; empty if they can."""
        if self.lease_duration < 1 or self.renew_deadline < 1 or self.retry_period < 1:
            return "leaseDuration, renewDeadline and retryPeriod must be at least one second"
        if self.lease_duration <= self.renew_deadline:
            return "leaseDuration must be greater than renewDeadline"
        if self.renew_deadline <= JITTER * self.retry_period:
            return "renewDeadline must be greater than retryPeriod*JitterFactor"
        return ""


class Seen(msgspec.Struct, frozen=True):
    """A Lease's spec, and when (by our own clock, in seconds) it was first seen to say so."""

    spec: Object
    at: float

    @property
    def holder(self) -> str:
        """Who leads; empty: nobody."""
        return str(self.spec.get("holderIdentity") or "")


class Attempt(msgspec.Struct, frozen=True):
    """What one look at the Lease comes to. `write` None: another leads."""

    seen: Seen | None
    write: Object | None


class Candidate(msgspec.Struct, frozen=True):
    """One who would lead: for which Lease, under which identity (its own alone), how fast."""

    name: str
    namespace: str
    identity: str
    timing: Timing

    def attempt(self, there: Object | None, seen: Seen | None, clock: float, now: datetime.datetime) -> Attempt:
        """Take the Lease if it may be taken, renew it if it is ours. `clock` is monotonic, `now` is what is written."""
        spec: Object = (there or {}).get("spec") or {}
        mine: Object = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self.timing.lease_duration),
            "renewTime": _micro(now),
            "acquireTime": _micro(now),
            "leaseTransitions": 0,
        }
        if there is None:
            metadata = {"name": self.name, "namespace": self.namespace}
            made = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": mine}
            return Attempt(None, made)
        if seen is None or seen.spec != spec:
            seen = Seen(spec, clock)
        lasts = seen.at + float(spec.get("leaseDurationSeconds", self.timing.lease_duration))
        if seen.holder not in ("", self.identity) and lasts > clock:
            return Attempt(seen, None)
        transitions = int(spec.get("leaseTransitions", 0))
        if seen.holder == self.identity:
            mine |= {"acquireTime": spec.get("acquireTime", _micro(now)), "leaseTransitions": transitions}
        else:
            mine["leaseTransitions"] = transitions + 1
        return Attempt(seen, {**there, "spec": {**spec, **mine}})


def released(there: Object, now: datetime.datetime) -> Object:
    """The Lease given up, so that the next one need not wait."""
    spec = {**(there.get("spec") or {}), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro(now)}
    return {**there, "spec": {**spec, "acquireTime": _micro(now)}}


def _micro(now: datetime.datetime) -> str:
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
