"""More of nodes outside the LAN, which takes longer: `make nodes`, after `make test`."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cluster.outside_lab import API
from tests.cluster.outside_nodes import Outside, outside

__all__ = ["outside"]  # the fixture

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-outside")]


def test_links_that_somebody_removes_come_back(outside: Outside) -> None:
    """The tunnel's link, and the process behind it: everything works again."""
    lab = outside.lab
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")
    lab.run(lab.machine("c"), "ip", "link", "delete", outside.tunnel("c"))
    outside.wait_for(outside.all_reach_all, "every pod reaches every other again")
    for process in outside.tunnel_processes("n1"):
        os.kill(process, signal.SIGKILL)
    outside.wait_for(outside.all_reach_all, "… and again")


def test_a_machine_on_the_lan_joins_too(outside: Outside) -> None:
    """It is in no other network, reaches its neighbors by plain routes and the others by tunnels, and leaves again."""
    lab, cluster = outside.lab, outside.cluster
    address = lab.add_on_lan("m1", 77)
    words = lab.invitation().replace(API, cluster.get("endpoints", "kubernetes")["subsets"][0]["addresses"][0]["ip"])
    assert "on the cluster's LAN" in lab.join("m1", command=words).stdout
    outside.settle()
    assert (outside.internal("m1"), outside.address("m1", "ExternalIP")) == (address, "")
    outside.wait_for(outside.all_reach_all, "every pod reaches every other")
    routes = lab.run(lab.machine("m1"), "ip", "route").stdout
    assert f"via {outside.internal('n1')} dev eth0 proto 241" in routes
    name = outside.pods["m1"]["metadata"]["name"]
    assert cluster.kubectl("exec", name, "--", "printenv", "NODE") == "m1\n"
    lab.leave("m1")
    outside.settle()
