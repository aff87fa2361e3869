"""GET, one or many: what a resourceVersion, its match, a limit and a continue token mean.

Stands between `Registry` and the store. Invariant: all pages of a list show one revision, or say 410 Expired.
Source: the API concepts page on resource versions and on retrieving large results.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
import orjson

from fairlead.api.errors import (
    FieldError,
    StatusError,
    bad_request,
    expired,
    forbidden,
    not_found,
    not_supported,
    unprocessable,
)
from fairlead.api.kinds import Resource
from fairlead.registry.fresh import catch_up, find
from fairlead.registry.requests import ListOptions, ListResult
from fairlead.registry.selection import Selection
from fairlead.registry.stored import key_of, prefix_of, served
from fairlead.store.interface import Compacted, FutureRevision, Record, Store

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


class ContinueToken(msgspec.Struct, frozen=True):
    """Where a list goes on: after `key`, at `revision` (-1: at whatever is the newest)."""

    revision: int
    key: str

    def render(self) -> str:
        """The opaque text."""
        body = {"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.key}
        return base64.urlsafe_b64encode(orjson.dumps(body)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, prefix: str) -> ContinueToken:
        """From its text. 400 if it is not one of ours, or of another list."""
        try:
            body = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            token = cls(body["rv"], body["start"])
            if body["v"] != "meta.k8s.io/v1" or type(token.revision) is not int or not token.key.startswith(prefix):
                raise ValueError("it is of another list")
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise bad_request(f"continue key is not valid: {error}") from None
        return token


def parse_revision(text: str) -> int:
    """A resourceVersion as a revision; 0 for none. 400 if it is not a number."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise bad_request(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    if len(text) > 20 or int(text) >= 2**64:
        raise bad_request(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": value out of range'
        )
    return int(text)


def too_large(revision: int, current: int) -> StatusError:
    """504: a resourceVersion this store has not reached."""
    text = f"Too large resource version: {revision}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return StatusError(504, "Timeout", text, causes=causes, retry_after=1)


def _check(options: ListOptions) -> None:
    match, version = options.resource_version_match, options.resource_version
    problems: list[FieldError] = []
    if match:
        if options.continue_token:
            text = "resourceVersionMatch is forbidden when continue is provided"
            problems.append(forbidden("resourceVersionMatch", text))
        if not version:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            problems.append(forbidden("resourceVersionMatch", text))
        if match not in {"Exact", "NotOlderThan"}:
            problems.append(not_supported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]))
        if match == "Exact" and version == "0":
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            problems.append(forbidden("resourceVersionMatch", text))
    if problems:
        raise unprocessable("ListOptions", "meta.k8s.io", "", problems)
    if options.limit < 0:
        raise bad_request("limit must not be negative")


async def get_record(store: Store, resource: Resource, namespace: str, name: str) -> Record:
    """The record of one object, or 404."""
    record = await find(store, key_of(resource, namespace, name))
    if record is None:
        raise not_found(resource.plural, resource.group, name)
    return record


async def list_objects(store: Store, resource: Resource, namespace: str, options: ListOptions) -> ListResult:
    """As `Registry.list`."""
    records, result = await list_records(store, resource, namespace, options)
    return ListResult([served(resource, r) for r in records], result.revision, result.continue_token, result.remaining)


async def list_records(
    store: Store, resource: Resource, namespace: str, options: ListOptions
) -> tuple[list[Record], ListResult]:
    """The chosen records, and the result they make, still without items."""
    _check(options)
    selection = Selection.parse(resource, options.label_selector, options.field_selector)
    prefix = prefix_of(resource, namespace)
    asked = parse_revision(options.resource_version)
    revision, after = 0, ""
    if options.continue_token:
        if asked:
            raise bad_request("specifying resource version is not allowed when using continue")
        token = ContinueToken.parse(options.continue_token, prefix)
        revision, after = max(0, token.revision), token.key
    elif options.resource_version_match == "Exact" or (asked and options.limit and not options.resource_version_match):
        revision = asked
    if asked > store.revision or not (options.resource_version or options.continue_token):
        await catch_up(store)
    if asked > store.revision:
        raise too_large(asked, store.revision)
    name = selection.name
    if name and (namespace or not resource.namespaced) and not revision and not options.continue_token:
        record = await store.get(key_of(resource, namespace, name))
        chosen = [record] if record is not None and selection.matches(record) else []
        return chosen, ListResult([], store.revision)
    try:
        limit = options.limit if selection.everything else 0
        page = await store.list(prefix, revision=revision, after=after, limit=limit)
    except FutureRevision as error:
        raise too_large(revision, error.current) from None
    except Compacted:
        if not options.continue_token:
            raise expired("The resourceVersion for the provided list is too old.") from None
        error_410 = expired(_TOO_OLD)
        error_410.status["metadata"] = {"continue": ContinueToken(-1, after).render()}
        raise error_410 from None
    if selection.everything:
        token_text = _token(page.records, page.revision) if page.remaining else ""
        return page.records, ListResult([], page.revision, token_text, page.remaining or None)
    chosen, more = [], False
    for record in page.records:
        if selection.matches(record):
            if options.limit and len(chosen) == options.limit:
                more = True
                break
            chosen.append(record)
    return chosen, ListResult([], page.revision, _token(chosen, page.revision) if more else "")


def _token(records: list[Record], revision: int) -> str:
    return ContinueToken(revision, records[-1].key).render()
