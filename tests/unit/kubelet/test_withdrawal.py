"""Out of the way before the end: bounds, and what is awaited."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fairlead.kubelet.runtime import Sandbox, SandboxGone
from fairlead.kubelet.withdrawal import drained, withdraw_seconds, withdrawn


@pytest.mark.parametrize(
    ("annotation", "default", "seconds"),
    [
        (None, 2.0, 2.0),
        ("0", 2.0, 0.0),
        ("7.5", 2.0, 7.5),
        ("soon", 2.0, 2.0),
        ("-1", 2.0, 2.0),
        ("nan", 2.0, 2.0),
        ("inf", 2.0, 2.0),
        ("5", 0.0, 0.0),
    ],
)
def test_the_annotation_goes_before_the_default(annotation: str | None, default: float, seconds: float) -> None:
    """But where the node does not withdraw pods, or it is no number, the default holds."""
    annotations = {} if annotation is None else {"fairlead.dev/withdraw-seconds": annotation}
    assert withdraw_seconds({"metadata": {"annotations": annotations}}, default) == seconds


async def test_withdrawn_at_once_when_nothing_is_missing() -> None:
    """No event is awaited."""
    assert await withdrawn(lambda: "", asyncio.Event().wait, asyncio.get_running_loop().time() + 60) == ""


async def test_withdrawn_looks_again_with_every_change_and_gives_up_in_time() -> None:
    """It says what was missing."""
    reasons = ["slice", "n1, n2", "n2", ""]

    async def changed() -> None:
        reasons.pop(0)

    assert await withdrawn(lambda: reasons[0], changed, asyncio.get_running_loop().time() + 60) == ""
    assert await withdrawn(lambda: "n2", asyncio.Event().wait, asyncio.get_running_loop().time()) == "n2"


class Shim:
    """Answers with these numbers of busy connections."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def request(self, op: str) -> tuple[dict[str, Any], tuple[int, ...]]:
        assert op == "connections"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer, ()


@pytest.mark.parametrize(
    "answers",
    [({"busy": 2}, {"busy": 1}, {"busy": 0}), ({"error": "unknown op"},), ({"busy": 1}, SandboxGone())],
    ids=["until none is busy", "a shim that can't tell", "the pod is gone"],
)
async def test_drained(answers: tuple[Any, ...]) -> None:
    """It ends when there is nothing to wait for."""
    assert await drained(cast(Sandbox, Shim(*answers)), asyncio.get_running_loop().time() + 60)


async def test_drained_gives_up_in_time() -> None:
    """A connection that stays busy does not keep the pod."""
    assert not await drained(cast(Sandbox, Shim({"busy": 1})), asyncio.get_running_loop().time() + 0.02)
