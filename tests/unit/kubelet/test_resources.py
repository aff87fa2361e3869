"""What a pod's control group is told, and when its files are too many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.kubelet.localstorage import Usage, excess, is_limited, measure, memory_size
from fairlead.kubelet.resources import limits, pod_limits
from fairlead.linux.podcgroups import Limits

Object = dict[str, Any]


def container(name: str = "c", requests: Object | None = None, **most: str) -> Object:
    return {"name": name, "resources": {"limits": dict(most), "requests": requests or {}}}


def pod(*containers: Object, **spec: Any) -> Object:
    return {"spec": {"containers": list(containers), **spec}}


def test_a_container() -> None:
    """A limit that stands alone is the request, too."""
    assert limits(container(cpu="500m", memory="1Mi")) == Limits(1 << 20, 0.5, 0.5)
    assert limits(container(requests={"cpu": "100m"}, cpu="1")) == Limits(0, 1.0, 0.1)
    assert not limits(container())


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (pod(container(memory="1Mi"), container(memory="2Mi")), Limits(3 << 20)),
        (pod(container(memory="1Mi"), container()), Limits()),
        (pod(container(cpu="1"), container(requests={"cpu": "1"})), Limits(0, 0, 2.0)),
        (pod(container(memory="1Mi"), initContainers=[container(memory="5Mi")]), Limits(5 << 20)),
        (
            pod(container(memory="1Mi"), initContainers=[{**container(memory="5Mi"), "restartPolicy": "Always"}]),
            Limits(6 << 20),
        ),
        (pod(container(), resources={"limits": {"memory": "7Mi"}}), Limits(7 << 20)),
    ],
    ids=["sum", "one without", "requests", "init container", "sidecar", "the pod's own"],
)
def test_a_pod(subject: Object, expected: Limits) -> None:
    """The sum of what runs side by side; a limit only if each has one, or the pod says it."""
    assert pod_limits(subject) == expected


def test_too_many_files() -> None:
    """An emptyDir over its limit; what containers write, together and each; nothing is measured without a limit."""
    cache = {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}
    subject = pod(
        container("a", **{"ephemeral-storage": "1Mi"}), container("b", **{"ephemeral-storage": "1Mi"}), **cache
    )
    assert is_limited(subject)
    assert not is_limited(pod(container(memory="1Mi"), volumes=[{"name": "v", "emptyDir": {}}]))
    assert excess(subject, Usage({"v": 1 << 20}, {"a": 1 << 20})) == ""
    assert excess(subject, Usage({"v": (1 << 20) + 1})) == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert excess(subject, Usage({}, {"a": 3 << 20})).startswith("Pod ephemeral local storage usage exceeds the total")
    assert excess(subject, Usage({}, {"a": (1 << 20) + 1})) == (
        'Container a exceeded its local ephemeral storage limit "1Mi". '
    )


def test_sizes_in_memory() -> None:
    """The volume's limit, and no more than the pod may take."""
    volume = {"emptyDir": {"medium": "Memory", "sizeLimit": "3Mi"}}
    assert memory_size(pod(container()), volume) == 3 << 20
    assert memory_size(pod(container(memory="2Mi")), volume) == 2 << 20
    assert memory_size(pod(container()), {"emptyDir": {"medium": "Memory"}}) == 0


def test_measuring(tmp_path: Path) -> None:
    """Blocks on disk; a file with two names counts once; what is not there is nothing."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(bytes(8192))
    before = measure(tmp_path)
    assert before >= 8192
    (tmp_path / "b").hardlink_to(tmp_path / "deep" / "a")
    assert measure(tmp_path) == before
    assert measure(tmp_path / "absent") == 0
