"""RequestInfo: upstream's table of paths and what they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.apiserver.request import parse

CASES = [
    # method, path, query → verb, group, version, plural, namespace, name, subresource, served
    ("GET", "/api/v1/namespaces", {}, ("list", "", "v1", "namespaces", "", "", "", True)),
    ("GET", "/api/v1/namespaces/a", {}, ("get", "", "v1", "namespaces", "a", "a", "", True)),
    ("PUT", "/api/v1/namespaces/a/finalize", {}, ("update", "", "v1", "namespaces", "a", "a", "finalize", True)),
    ("PUT", "/api/v1/namespaces/a/status", {}, ("update", "", "v1", "namespaces", "a", "a", "status", True)),
    ("GET", "/api/v1/namespaces/a/pods", {}, ("list", "", "v1", "pods", "a", "", "", True)),
    ("GET", "/api/v1/pods", {"watch": "true"}, ("watch", "", "v1", "pods", "", "", "", True)),
    ("GET", "/api/v1/pods", {"watch": "0"}, ("list", "", "v1", "pods", "", "", "", True)),
    ("GET", "/api/v1/watch/namespaces/a/pods", {}, ("watch", "", "v1", "pods", "a", "", "", True)),
    ("GET", "/api/v1/namespaces/a/pods/p/log", {}, ("get", "", "v1", "pods", "a", "p", "log", True)),
    ("POST", "/api/v1/namespaces/a/pods/p/exec", {}, ("create", "", "v1", "pods", "a", "p", "exec", True)),
    ("DELETE", "/api/v1/namespaces/a/pods", {}, ("deletecollection", "", "v1", "pods", "a", "", "", True)),
    ("DELETE", "/api/v1/nodes/n", {}, ("delete", "", "v1", "nodes", "", "n", "", True)),
    ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale", {},
     ("patch", "apps", "v1", "deployments", "a", "d", "scale", True)),
    ("GET", "/api/v1/namespaces/a/nodes/n", {}, ("get", "", "v1", "nodes", "a", "n", "", False)),
    ("GET", "/api/v1/pods/p", {}, ("get", "", "v1", "pods", "", "p", "", False)),
    ("GET", "/api/v1/namespaces/a/pods/p/nonsense", {}, ("get", "", "v1", "pods", "a", "p", "nonsense", False)),
    ("GET", "/apis/apps/v9/deployments", {}, ("list", "apps", "v9", "deployments", "", "", "", False)),
    ("GET", "/api/v1/namespaces/a/pods/x%2Fy", {}, ("get", "", "v1", "pods", "a", "x/y", "", True)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "query", "expected"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_a_path_means_what_upstream_says(method, path, query, expected):
    """Verb, resource, namespace, name and subresource of each path; unserved ones have no resource."""
    info = parse(method, path, query)
    assert (
        info.verb, info.group, info.version, info.plural, info.namespace, info.name, info.subresource,
        info.resource is not None,
    ) == expected  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/api", "/apis/apps/v1", "/version", "//healthz//", "/openapi/v3/api/v1"])
def test_other_paths_are_no_resource_requests(path):
    """Discovery, health and OpenAPI paths keep the HTTP method as verb."""
    info = parse("GET", path, {})
    assert (info.is_resource, info.verb, info.resource) == (False, "get", None)


_words = st.sampled_from(
    ["api", "apis", "v1", "watch", "namespaces", "pods", "nodes", "apps", "deployments", "a", "%2F", "%zz", "é", ""]
)


@given(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "BREW"]), st.lists(_words, max_size=9))
def test_no_path_breaks_the_parser(method, words):
    """Any method, any path: an answer, and what it says is served really is."""
    info = parse(method, "/" + "/".join(words), {"watch": "1"})
    if info.resource is not None:
        assert (info.resource.plural, info.resource.group) == (info.plural, info.group)
        assert not info.subresource or info.subresource in info.resource.subresources
