"""Which representation an answer takes: the Accept header, read as Kubernetes' clients write it.

Pure. Invariant: the first offered type that can be served wins; protobuf is never served (so a client that offers it
first and JSON second gets JSON, and one that offers nothing else gets a 406).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

from fairlead.api import errors

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
WATCH_JSON = "application/json;stream=watch"

_KEPT = 512  # characters of an Accept header whose meaning is remembered

Form = Literal["Object", "Table", "PartialObjectMetadata"]


class MediaType(msgspec.Struct, frozen=True):
    """`type/subtype` and its parameters, all in lower case but for parameter values."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, key: str) -> str:
        """A parameter's value, or ''."""
        return next((v for k, v in self.parameters if k == key), "")


class Representation(msgspec.Struct, frozen=True):
    """How to write the answer: as the object itself, a Table or metadata only; JSON or YAML."""

    form: Form = "Object"
    version: str = "v1"
    yaml: bool = False

    @property
    def content_type(self) -> str:
        """The Content-Type header of an answer in this form."""
        return YAML if self.yaml else JSON


def parse_media_type(text: str) -> MediaType:
    """One element of an Accept header, or a Content-Type header."""
    name, *parameters = text.split(";")
    pairs = []
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        pairs.append((key.strip().lower(), value.strip().strip('"')))
    return MediaType(name.strip().lower(), tuple(pairs))


def parse_accept(header: str) -> tuple[MediaType, ...]:
    """The offered types, best first: by quality, then in the order given."""
    # Clients send the same few headers; what a stranger makes up must not be kept.
    return _parse_accept(header) if len(header) <= _KEPT else _parse_accept.__wrapped__(header)


@lru_cache(maxsize=256)
def _parse_accept(header: str) -> tuple[MediaType, ...]:
    offers = [parse_media_type(part) for part in header.split(",") if part.strip()]
    return tuple(sorted(offers, key=_quality, reverse=True))


def _quality(media: MediaType) -> float:
    try:
        return float(media.get("q") or 1)
    except ValueError:
        return 1.0


def negotiate(accept: str) -> Representation:
    """The representation for a resource. Raises a 406 StatusError when nothing offered can be served."""
    return _negotiate(accept) if len(accept) <= _KEPT else _negotiate.__wrapped__(accept)


@lru_cache(maxsize=256)
def _negotiate(accept: str) -> Representation:
    if not accept:
        return Representation()
    for media in parse_accept(accept):
        if media.name in (JSON, "*/*", "application/*"):
            found = _json_form(media)
            if found:
                return found
        elif media.name == YAML and not media.get("as"):
            return Representation(yaml=True)
    raise errors.not_acceptable(f"only the following media types are accepted: {JSON}, {YAML}, {WATCH_JSON}")


def _json_form(media: MediaType) -> Representation | None:
    wanted = media.get("as")
    if not wanted:
        return Representation()
    if media.get("g") != "meta.k8s.io" or media.get("v") not in ("v1", "v1beta1"):
        return None
    if wanted == "Table":
        return Representation("Table", media.get("v"))
    if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
        return Representation("PartialObjectMetadata", media.get("v"))
    return None


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header asks for gzip."""
    return any(
        media.name == "gzip" and _quality(media) > 0 for media in (parse_media_type(p) for p in header.split(","))
    )
