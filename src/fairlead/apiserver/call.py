"""One request under way: who asks for what, and its query read into the registry's options.

Between dispatch and the verbs. Invariant: a query parameter that can't be read is a 400 that names it, never a default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import msgspec
from aiohttp import web

from fairlead.api import errors, fields, schema
from fairlead.apiserver.negotiation import Representation, negotiate
from fairlead.apiserver.request import RequestInfo, is_true
from fairlead.registry import DeleteOptions, ListOptions, RequestContext, User, WatchOptions

_INTEGER = re.compile("[-+]?[0-9]+")
_INT64 = 2**63
_VALIDATION = ("", "Ignore", "Strict", "Warn")


class Call(msgspec.Struct, frozen=True):
    """A request for a resource that is served and that its user may make."""

    request: web.BaseRequest
    info: RequestInfo
    user: User
    now: datetime

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters."""
        return self.request.query

    @property
    def namespace(self) -> str:
        """The namespace the registry wants: empty for what has none."""
        resource = self.info.resource
        return self.info.namespace if resource is not None and resource.namespaced else ""

    @property
    def content_type(self) -> str:
        """The Content-Type header, '' if there is none."""
        return self.request.headers.get("Content-Type", "")

    def form(self) -> Representation:
        """The form the client wants the answer in. Raises 406."""
        return negotiate(self.request.headers.get("Accept", ""))

    def context(self) -> RequestContext:
        """What goes with a write. Raises 422 for values that aren't options."""
        query = self.query
        validation = query.get("fieldValidation", "")
        wrong = []
        if validation not in _VALIDATION:
            wrong.append(errors.not_supported("fieldValidation", validation, _VALIDATION))
        dry_run = self.request.query.getall("dryRun", [])
        for given in dry_run:
            if given not in ("All", ""):
                wrong.append(errors.not_supported("dryRun", given, ["All"]))
        manager = query.get("fieldManager", "")
        if len(manager) > 128:
            wrong.append(errors.too_long("fieldManager", 128))
        elif not manager.isprintable():
            wrong.append(errors.invalid("fieldManager", manager, "should only contain printable characters"))
        if wrong:
            kinds = {"update": "UpdateOptions", "patch": "PatchOptions"}
            raise errors.unprocessable(kinds.get(self.info.verb, "CreateOptions"), "meta.k8s.io", "", wrong)
        agent = self.request.headers.get("User-Agent", "").partition("/")[0]
        return RequestContext(
            user=self.user,
            dry_run="All" in dry_run,
            field_manager=manager or agent[:128] or "unknown",
            field_validation=validation,
            now=self.now,
        )

    def list_options(self) -> ListOptions:
        """The query of a list (also of what a deletecollection deletes)."""
        query = self.query
        return ListOptions(
            label_selector=query.get("labelSelector", ""),
            field_selector=self._field_selector(),
            resource_version=query.get("resourceVersion", ""),
            resource_version_match=query.get("resourceVersionMatch", ""),
            limit=integer(query, "limit") or 0,
            continue_token=query.get("continue", ""),
        )

    def watch_options(self) -> WatchOptions:
        """The query of a watch."""
        query = self.query
        initial = is_true(query, "sendInitialEvents") if "sendInitialEvents" in query else None
        return WatchOptions(
            label_selector=query.get("labelSelector", ""),
            field_selector=self._field_selector(),
            resource_version=query.get("resourceVersion", ""),
            resource_version_match=query.get("resourceVersionMatch", ""),
            allow_bookmarks=is_true(query, "allowWatchBookmarks"),
            send_initial_events=initial,
        )

    def _field_selector(self) -> str:
        selector = self.query.get("fieldSelector", "")
        if self.info.name and self.info.verb == "watch":
            named = f"metadata.name={self.info.name}"
            return f"{selector},{named}" if selector else named
        return selector


def integer(query: Mapping[str, str], key: str) -> int | None:
    """A whole number in the query, None if absent. Raises 400."""
    text = query.get(key, "")
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise errors.bad_request(f'{key}: strconv.ParseInt: parsing "{text}": invalid syntax')
    if len(text) > 20 or not -_INT64 <= int(text) < _INT64:
        raise errors.bad_request(f'{key}: strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


def delete_options(query: Mapping[str, str], body: dict[str, object]) -> DeleteOptions:
    """DeleteOptions from the body, or, without one, from the query. Raises 400 for wrong types."""
    if not body:
        body = {}
        grace = integer(query, "gracePeriodSeconds")
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if query.get("propagationPolicy"):
            body["propagationPolicy"] = query["propagationPolicy"]
        if "orphanDependents" in query:
            body["orphanDependents"] = is_true(query, "orphanDependents")
    described = schema.named(schema.DELETE_OPTIONS)
    return DeleteOptions.of(fields.check_schema(described, body, "DeleteOptions", "v1").object)
