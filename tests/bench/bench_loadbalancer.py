"""How long a load balancer's address is gone when its node is, and what announcing costs.

    python -m tests.bench loadbalancer    (ROUNDS=10 in the environment)

Three nodes and a client in network namespaces on one bridge, real ARP and TCP. The client connects every 10 ms; the
owner's port on the bridge is set down, and up again a few seconds later. The gap is from the last connection before to
the first one after. Needs root.
"""

from __future__ import annotations

import os
import secrets
import socket
import statistics
import time

from fairlead.linux import namespaces
from tests.kernel.test_announce import RANKING, VIP, Lab

_EVERY = 0.01
_TRY = 0.1


def main() -> None:
    """Print the gaps."""
    rounds = int(os.environ.get("ROUNDS", "10"))
    made: list[str] = []
    run = secrets.token_hex(3)

    def make(label: str) -> str:
        name = f"flb-{run}-{label}"
        namespaces.create(name)
        made.append(name)
        return name

    try:
        lab = Lab(make)
        try:
            measure(lab, rounds)
        finally:
            lab.stop()
    finally:
        for name in made:
            namespaces.delete(name)


def measure(lab: Lab, rounds: int) -> None:
    """The gaps of dead nodes and of those that come back, and the processor time."""
    for name in RANKING:
        lab.start(name, {VIP: RANKING})
    wait(lab, "n1")
    busy, began = time.process_time(), time.monotonic()
    time.sleep(5)
    share = (time.process_time() - busy) / (time.monotonic() - began)
    print(f"processor time of three announcers, one of which beats: {share * 100:.2f} % of a core")
    gone, back = [], []
    for _ in range(rounds):
        gone.append(gap(lab, "down", "n2"))
        back.append(gap(lab, "up", "n1"))
    print("| | p50 | most |\n|---|---|---|")
    print(f"| the owner dies | {statistics.median(gone):.2f} s | {max(gone):.2f} s |")
    print(f"| it comes back | {statistics.median(back):.2f} s | {max(back):.2f} s |")


def gap(lab: Lab, state: str, next_owner: str) -> float:
    """The longest time without a connection, from the change until the next owner has the address."""
    connect(lab)
    last, longest = time.monotonic(), 0.0
    lab.link("n1", state)
    quiet_until = 0.0
    while True:
        if connect(lab):
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        if lab.owner() == next_owner:
            quiet_until = quiet_until or time.monotonic() + 2
            if time.monotonic() > quiet_until:
                return longest
        time.sleep(_EVERY)


def connect(lab: Lab) -> bool:
    """Whether the address is reached: refused, since nothing listens."""
    with lab.inside("client"):
        one = socket.socket()
    with one:
        one.settimeout(_TRY)
        try:
            one.connect((str(VIP), 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


def wait(lab: Lab, owner: str) -> None:
    """Until that node has the address."""
    while not (connect(lab) and lab.owner() == owner):
        time.sleep(_EVERY)


if __name__ == "__main__":
    main()
