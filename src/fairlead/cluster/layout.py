"""Where a cluster keeps what, and how its namespaces and links are named.

Invariant: everything of a cluster is below its two directories or bears a name made here, so `down` can find it all.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

RUNTIME_ROOT = Path("/run/fairlead")
PUBLISHER = "publisher"
"""The process that holds the machine's own ports; a cluster that publishes nothing has none."""


def state_root() -> Path:
    """The directory of all clusters: $FAIRLEAD_STATE, or /var/lib/fairlead."""
    return Path(os.environ.get("FAIRLEAD_STATE") or "/var/lib/fairlead").absolute()


def images_directory() -> Path:
    """The images of this machine, for all its clusters. No cluster can have that name."""
    return state_root() / ".images"


def members_directory() -> Path:
    """The nodes of other machines' clusters that this machine is. No cluster can have that name."""
    return state_root() / ".nodes"


class Layout(msgspec.Struct, frozen=True):
    """The places of the cluster `name`."""

    name: str
    state: Path
    runtime: Path

    @classmethod
    def of(cls, name: str) -> Layout:
        """The layout of a cluster, whether it exists or not."""
        return cls(name, state_root() / name, RUNTIME_ROOT / name)

    @classmethod
    def of_member(cls, node: str) -> Layout:
        """The layout of a node that joined a cluster elsewhere. Named after its state, too: a machine may be nodes of
        one name in several clusters, each with a state of its own."""
        state = members_directory() / node
        name = f"node.{node}.{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"
        return cls(name, state, RUNTIME_ROOT / f".{name}")

    @property
    def member(self) -> Path:
        """What a joined node is."""
        return self.state / "node.json"

    @property
    def config(self) -> Path:
        """The cluster's description."""
        return self.state / "cluster.json"

    @property
    def store(self) -> Path:
        """The API's store."""
        return self.state / "store.db"

    @property
    def etcd_relay(self) -> Path:
        """The socket through which the control plane reaches etcd as this machine does."""
        return self.runtime / "etcd.sock"

    @property
    def pki(self) -> Path:
        """Certificates and keys, readable by their owner only."""
        return self.state / "pki"

    @property
    def announce_key(self) -> Path:
        """Signs what the nodes tell each other about the load balancers' addresses."""
        return self.pki / "announce.key"

    @property
    def logs(self) -> Path:
        """A file per process."""
        return self.state / "log"

    @property
    def volumes(self) -> Path:
        """The directories of volumes that were made for claims."""
        return self.state / "volumes"

    @property
    def sysctls(self) -> Path:
        """What the machine's sysctls were before a node joined on it."""
        return self.state / "sysctls.json"

    @property
    def owner(self) -> Path:
        """Holds the path of the state that the running cluster of this name belongs to."""
        return self.runtime / "owner"

    def lock(self, process: str) -> Path:
        """Held by the process of that name for as long as it lives."""
        return self.runtime / "lock" / process

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of a component, or of `admin`."""
        return self.state / "kubeconfig" / f"{user}.yaml"

    def failure(self, process: str) -> Path:
        """Why a process can't start, in one line; absent while all is well."""
        return self.runtime / f"{process}.failure"

    def node_state(self, node: str) -> Path:
        """A node's own state: pods, addresses."""
        return self.state / "nodes" / node

    def acceleration(self, node: str) -> Path:
        """Whether a node's pods' sockets are accelerated, in a word, or why not; absent if that was not asked for."""
        return self.runtime / "nodes" / f"{node}.acceleration"

    @property
    def lan_namespace(self) -> str:
        """The namespace that holds the cluster's LAN and its control plane."""
        return f"fl-{self.name}"

    def node_namespace(self, node: str) -> str:
        """A node's namespace."""
        return f"fl-{self.name}-{node}"

    @property
    def host_link(self) -> str:
        """The machine's end of the one veth pair; at most 15 characters."""
        name = f"fl-{self.name}"
        return name if len(name) <= 15 else "fl-" + hashlib.sha256(self.name.encode()).hexdigest()[:10]

    @property
    def host_table(self) -> str:
        """The nft table on the machine that translates what leaves the cluster."""
        return f"fairlead-{self.name}"


def clusters() -> list[str]:
    """The names of the clusters that have their state here, sorted."""
    try:
        return sorted(p.name for p in state_root().iterdir() if p.is_dir() and not p.name.startswith("."))
    except (FileNotFoundError, PermissionError):
        return []
