"""Requests that concern no object: discovery, OpenAPI, version, the paths there are, token keys.

Between dispatch and the pure documents. Invariant: each document is made once, when first asked for, and kept encoded
with its ETag until the resources it is of change.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from typing import Any

from aiohttp import web

from fairlead.api import errors
from fairlead.api.kinds import MEASURED, RESOURCES, Resource
from fairlead.api.version import GIT_VERSION
from fairlead.apiserver import discovery, respond
from fairlead.apiserver.negotiation import JSON, parse_accept
from fairlead.apiserver.request import RequestInfo
from fairlead.apiserver.tokens import TokenIssuer

_FOR_EVER = {"Cache-Control": "public, immutable", "Expires": "Thu, 31 Dec 2099 23:59:59 GMT"}
_V3_PROTOBUF = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"


class Document:
    """Encoded bytes and their hash."""

    def __init__(self, payload: bytes, content_type: str = JSON) -> None:
        self.payload, self.content_type = payload, content_type
        self.hash = hashlib.sha256(payload).hexdigest().upper()


class Documents:
    """Everything that is the same for all clients."""

    def __init__(
        self,
        issuer: TokenIssuer | None,
        resources: Callable[[], tuple[Resource, ...]] = lambda: RESOURCES,
        server_address: str = "",
    ) -> None:
        self._issuer, self._resources, self.server_address = issuer, resources, server_address
        self._made: dict[str, Document] = {}
        self._made_of: tuple[Resource, ...] = ()

    @property
    def _all(self) -> tuple[Resource, ...]:
        """The resources there are; documents made of others are forgotten."""
        resources = self._resources()
        if resources is not self._made_of:
            before = {address: self._resources_at(address) for address in {openapi_address(r) for r in self._made_of}}
            self._made_of = resources
            same = {f"v3 {address}" for address, found in before.items() if self._resources_at(address) == found}
            self._made = {key: document for key, document in self._made.items() if key in same}
        return resources

    @property
    def _listed(self) -> tuple[Resource, ...]:
        """What discovery tells of: also what is answered, but has no schema."""
        return (*self._all, *MEASURED)

    def _resources_at(self, address: str) -> list[Resource]:
        return [resource for resource in self._made_of if openapi_address(resource) == address]

    def serve(self, request: web.BaseRequest, info: RequestInfo) -> web.Response:
        """The answer to a GET that is no resource request. Raises 404, 405, 406."""
        if request.method not in ("GET", "HEAD"):
            if info.segments[:1] in (("api",), ("apis",), ("version",), ("openapi",)):
                raise errors.method_not_allowed()
            raise _no_such_path()
        match info.segments:
            case ():
                return respond.value(request, {"paths": self._paths()})
            case ("version",):
                go = f"python{platform.python_version()}"
                return respond.value(request, discovery.version_document(go, f"linux/{platform.machine()}"))
            case ("api",):
                return self._root(request, core=True)
            case ("apis",):
                return self._root(request, core=False)
            case ("api", version):
                return self._legacy(request, discovery.api_resource_list("", version, self._all))
            case ("apis", group):
                return self._legacy(request, discovery.api_group(group, self._listed))
            case ("apis", group, version):
                return self._legacy(request, discovery.api_resource_list(group, version, self._listed))
            case ("openapi", "v2"):
                return self._openapi_v2(request)
            case ("openapi", "v3"):
                return self._cached(request, self._index())
            case ("openapi", "v3", *rest):
                return self._openapi_v3(request, "/".join(rest))
            case ("openid", "v1", "jwks") if self._issuer is not None:
                return respond.value(request, self._issuer.jwks())
            case (".well-known", "openid-configuration") if self._issuer is not None:
                return respond.value(request, self._openid(self._issuer))
        raise _no_such_path()

    def _document(self, key: str, make: Any, content_type: str = JSON) -> Document:
        found = self._made.get(key)
        if found is None:
            made = make()
            payload = made if isinstance(made, bytes) else respond.encode(made)
            found = self._made[key] = Document(payload, content_type)
        return found

    def _cached(
        self, request: web.BaseRequest, document: Document, headers: dict[str, str] | None = None
    ) -> web.Response:
        etag = f'"{document.hash}"'
        sent = {"ETag": etag, "Vary": "Accept", **(headers or {})}
        offered = request.headers.get("If-None-Match", "")
        if etag in [tag.strip() for tag in offered.split(",")]:
            return web.Response(status=304, headers=sent)
        return respond.raw(request, document.payload, content_type=document.content_type, headers=sent)

    # ---- discovery
    def _root(self, request: web.BaseRequest, *, core: bool) -> web.Response:
        resources = self._listed
        for media in parse_accept(request.headers.get("Accept", "")):
            if media.name != JSON:
                continue
            wanted, version = media.get("as"), media.get("v")
            if wanted == "APIGroupDiscoveryList" and media.get("g") == "apidiscovery.k8s.io":
                if version in ("v2", "v2beta1"):
                    key = f"{'api' if core else 'apis'} {version}"
                    made = self._document(
                        key,
                        lambda v=version: discovery.aggregated(core, v, resources),
                        discovery.AGGREGATED_TYPES[version],
                    )
                    return self._cached(request, made)
            elif not wanted:
                break
        return self._legacy(
            request, discovery.api_versions(self.server_address) if core else discovery.api_group_list(resources)
        )

    def _legacy(self, request: web.BaseRequest, body: dict[str, Any] | None) -> web.Response:
        if body is None:
            raise errors.not_found("", "", "")
        return respond.value(request, body)

    def _paths(self) -> list[str]:
        found = ["/api", "/api/v1", "/apis"]
        for group, versions in discovery.groups(self._listed).items():
            if group:
                found += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        found += [
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/api/v1",
            "/readyz",
            "/version",
        ]
        return sorted(found)

    # ---- OpenAPI
    def _openapi_v2(self, request: web.BaseRequest) -> web.Response:
        from fairlead.apiserver import openapi_v2

        resources = self._all

        def swagger() -> dict[str, Any]:
            return openapi_v2.document(resources, GIT_VERSION)

        for media in parse_accept(request.headers.get("Accept", "*/*")):
            if media.name in openapi_v2.PROTOBUF_TYPES:
                # Whichever name was asked for: newer Go can't parse the one with an @ (as upstream answers, too).
                made = self._document("v2 protobuf", lambda: openapi_v2.encode(swagger()), openapi_v2.PROTOBUF_TYPES[1])
                return self._cached(request, made)
            if media.name in (JSON, "*/*", "application/*"):
                return self._cached(request, self._document("v2", swagger))
        raise errors.not_acceptable(
            f"only the following media types are accepted: {JSON}, {', '.join(openapi_v2.PROTOBUF_TYPES)}"
        )

    def _index(self) -> Document:
        _ = self._all
        return self._document("v3", self._v3_index)

    def _v3_index(self) -> dict[str, Any]:
        """Each group version's address, with its hash, so that clients may keep it for ever."""
        from fairlead.api import openapi

        paths = {}
        for path in openapi.index(self._all)["paths"]:
            document = self._v3(path)
            if document is not None:
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={document.hash}"}
        return {"paths": paths}

    def _v3(self, path: str) -> Document | None:
        from fairlead.api import openapi

        resources = self._all
        if path not in openapi.index(resources)["paths"]:
            return None
        return self._document(f"v3 {path}", lambda: openapi.document(path, resources))

    def _openapi_v3(self, request: web.BaseRequest, path: str) -> web.Response:
        document = self._v3(path)
        if document is None:
            raise _no_such_path()
        offers = parse_accept(request.headers.get("Accept", "*/*")) or parse_accept("*/*")
        if not any(media.name in (JSON, "*/*", "application/*") for media in offers):
            raise errors.not_acceptable(f"only the following media types are accepted: {JSON}")
        asked = request.query.get("hash")
        if asked and asked != document.hash:
            there = f"/openapi/v3/{path}?hash={document.hash}"
            return web.Response(status=301, headers={"Location": there})
        return self._cached(request, document, _FOR_EVER if asked else None)

    def _openid(self, issuer: TokenIssuer) -> dict[str, Any]:
        return {
            "issuer": issuer.issuer,
            "jwks_uri": f"https://{self.server_address}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }


def openapi_address(resource: Resource) -> str:
    """Where a resource is documented: `apis/apps/v1`."""
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def _no_such_path() -> errors.StatusError:
    return errors.not_found("", "", "")
