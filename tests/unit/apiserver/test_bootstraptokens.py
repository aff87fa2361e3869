"""Bootstrap tokens: whom a Secret lets in, and whom not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from fairlead.apiserver.bootstraptokens import parse, user_of
from fairlead.cluster.invitation import DEFAULT_GROUP, expiration_of, new_token, token_secret

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = "abcdef.0123456789abcdef"


def secret(lifetime: float = 60, **changes: str | None) -> dict:
    """The Secret of TOKEN, with other data (None: without)."""
    made = token_secret(TOKEN, timedelta(seconds=lifetime), "", NOW)
    for key, text in changes.items():
        name = key.replace("_", "-")
        made["data"].pop(name, None)
        if text is not None:
            made["data"][name] = base64.b64encode(text.encode()).decode()
    return made


def test_a_good_token_is_a_bootstrapper_of_its_groups() -> None:
    """The user is named by the token's id, and is in the group of all bootstrappers and in the Secret's own."""
    user, why_not = user_of(secret(), "abcdef", "0123456789abcdef", NOW)
    assert (why_not, user and user.name) == ("", "system:bootstrap:abcdef")
    assert user is not None
    assert user.groups == ("system:bootstrappers", DEFAULT_GROUP)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (secret(-1), "it expired at 2026-01-02T03:04:04Z"),
        (secret(0.5), "it expired"),  # to the second
        (secret(token_secret="0123456789abcdee"), "the secret differs"),
        (secret(token_secret=None), "the secret differs"),
        (secret(token_id="abcdeg"), "its token-id is another one"),
        (secret(usage_bootstrap_authentication="false"), "not for authentication"),
        (secret(usage_bootstrap_authentication=None), "not for authentication"),
        (secret(expiration="soon"), "is no time"),
        (secret(auth_extra_groups="system:masters"), "no group of bootstrappers"),
        ({**secret(), "type": "Opaque"}, "its type is not"),
        ({**secret(), "metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}, "being deleted"),
    ],
)
def test_anything_wrong_lets_nobody_in(made: dict, why: str) -> None:
    """Expired, another secret, another type, another use, a group that is none of bootstrappers."""
    user, why_not = user_of(made, "abcdef", "0123456789abcdef", NOW)
    assert user is None
    assert why in why_not


def test_a_token_without_an_end_is_good_for_ever() -> None:
    """A lifetime of zero writes no expiration."""
    assert expiration_of(secret(0)) is None
    assert user_of(secret(0), "abcdef", "0123456789abcdef", NOW + timedelta(days=9999))[0] is not None


def test_only_what_has_the_form_is_looked_up() -> None:
    """Six and sixteen lower-case letters and digits; a made token has that form."""
    assert parse(TOKEN) == ("abcdef", "0123456789abcdef")
    assert parse(new_token()) is not None
    for other in ("", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", f"{TOKEN}0", f" {TOKEN}", "a.b.c"):
        assert parse(other) is None
