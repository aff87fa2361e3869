"""Network namespaces for one test, with names of their own, gone after it whatever happens; and a node in one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator

import pytest

from fairlead.linux import namespaces
from tests.kernel.kubelet_lab import Lab, leftovers


@pytest.fixture
def make_namespace() -> Iterator[Callable[[str], str]]:
    """A function that makes a network namespace and says its full name."""
    made: list[str] = []
    run = secrets.token_hex(3)

    def make(label: str) -> str:
        name = f"flt-{run}-{label}"
        namespaces.create(name)
        made.append(name)
        return name

    yield make
    for name in made:
        namespaces.delete(name)


@pytest.fixture
def lab(make_namespace: Callable[[str], str]) -> Iterator[Lab]:
    """A node that is not started yet. Nothing of it is left after the test."""
    with Lab(make_namespace("kubelet")) as made:
        yield made
        run = made.base.name
    assert not leftovers(run)


@pytest.fixture(autouse=True, scope="session")
def _root() -> None:
    if os.geteuid() != 0:
        pytest.exit("the kernel tests need root (CAP_NET_ADMIN and CAP_SYS_ADMIN): run them with sudo", returncode=2)
