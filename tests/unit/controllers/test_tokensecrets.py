"""What a Secret with a token holds, and whose it may be."""

from __future__ import annotations

import base64
from typing import Any

from fairlead.controllers import tokensecrets

Object = dict[str, Any]
ACCOUNT: Object = {"metadata": {"name": "robot", "uid": "u1"}}


def secret(uid: str = "", **data: str) -> Object:
    annotations = {tokensecrets.NAME: "robot"} | ({tokensecrets.UID: uid} if uid else {})
    metadata = {"name": "s", "namespace": "shop", "annotations": annotations}
    return {"metadata": metadata, "type": tokensecrets.TYPE, "data": data}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_whose_it_is() -> None:
    """The named account's, if that is the one it was before."""
    assert tokensecrets.account_of(secret()) == "robot"
    assert tokensecrets.account_of({"metadata": {"name": "plain"}}) == ""
    assert tokensecrets.belongs(secret(), ACCOUNT)
    assert tokensecrets.belongs(secret("u1"), ACCOUNT)
    assert not tokensecrets.belongs(secret("u0"), ACCOUNT)
    assert not tokensecrets.belongs(secret(), None)


def test_what_it_holds() -> None:
    """The token it has stays; the rest is put right; what else is in it stays, too."""
    made = tokensecrets.completed(secret(extra="eA=="), ACCOUNT, "PEM", "t0")
    assert made["metadata"]["annotations"] == {tokensecrets.NAME: "robot", tokensecrets.UID: "u1"}
    whole = {"namespace": encoded("shop"), "ca.crt": encoded("PEM"), "token": encoded("t0"), "extra": "eA=="}
    assert made["data"] == whole
    assert tokensecrets.completed(made, ACCOUNT, "PEM", "") == made
    wrong = {**made, "data": {**whole, "namespace": encoded("other")}}
    assert tokensecrets.completed(wrong, ACCOUNT, "PEM", "") == made
