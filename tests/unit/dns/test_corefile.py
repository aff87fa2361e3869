"""The Corefile's grammar, and what is said when one is wrong: file, line, plugin, option."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.dns.config import ABSENT, PLUGINS, Listener, load, plugin_kind
from fairlead.dns.corefile import Directive, Token, parse
from tests.unit.dns.corefiles import config_of, error_of

KUBEADM = """
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . 192.0.2.53 {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""


def shape(text: str, **environment: str) -> list[tuple[list[str], list[tuple[str, list[str], list[str]]]]]:
    """Blocks as plain values: keys, and (name, args, names of the options) of each directive."""
    blocks = parse(text, "Corefile", environment, lambda pattern, file: [])
    return [
        (
            [key.text for key in block.keys],
            [(d.name, d.args, [option.name for option in d.children]) for d in block.directives],
        )
        for block in blocks
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (". {\n whoami\n}", [(["."], [("whoami", [], [])])]),
        ("example.org, example.net {\n}\n", [(["example.org", "example.net"], [])]),
        ("a,\nb {\n}", [(["a", "b"], [])]),
        (".:1053\nwhoami\nlog", [([".:1053"], [("whoami", [], []), ("log", [], [])])]),
        ('. { # a comment\n  log "a b" # more\n#no {\n}', [(["."], [("log", ["a b"], [])])]),
        (
            '. {\n x "say \\"hi\\"" "two\nlines" \n y\n}',
            [(["."], [("x", ['say "hi"', "two\nlines"], []), ("y", [], [])])],
        ),
        (". {\n a 1 {\n b 2\n c\n }\n d\n}\n", [(["."], [("a", ["1"], ["b", "c"]), ("d", [], [])])]),
        (".:{$PORT} {\n x {%WHAT%}/{$NOT_SET}y\n}", [([".:53"], [("x", ["it/y"], [])])]),
        ("(s) {\n a\n b\n}\n. {\n import s\n c\n}", [(["."], [("a", [], []), ("b", [], []), ("c", [], [])])]),
        (". {\n x#y\n}", [(["."], [("x#y", [], [])])]),
    ],
)
def test_grammar(text: str, expected: object) -> None:
    """Blocks, quotes, comments, braces, environment variables, snippets."""
    assert shape(text, PORT="53", WHAT="it") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Corefile:1: no server block"),
        (". {\n whoami\n", "Corefile:1: .: its brace is never closed"),
        ('. {\n a "b\n}', "Corefile:2: a quote begins here and does not end"),
        (".\n{\n whoami\n}", "Corefile:1: .: a brace must open on the same line"),
        (". {\n}}\n", "Corefile:1: .: its brace is never closed"),
        (". {\n} x\n", "Corefile:2: nothing may follow a closing brace"),
        ("(s) {\n import s\n}\n. {\n import s\n}", "Corefile:2: import: s: does it import itself?"),
        ("(s) {\n}\n(s) {\n}", "Corefile:3: snippet (s) is defined twice"),
        (". {\n import nothing\n}", "Corefile:2: import: nothing: No such file or directory"),
        (". {\n frobnicate\n}", "Corefile:2: frobnicate: unknown plugin"),
        (". {\n route53 example.org\n}", "Corefile:2: route53: this plugin of CoreDNS is not supported"),
        (". {\n whoami x\n}", "Corefile:2: whoami: takes 0 arguments, not 1"),
        (". {\n cache\n cache\n}", "Corefile:3: cache: can only be used once in a server block"),
        (". {\n}\n.:53 {\n}", "Corefile:3: zone . on dns://:53 is served by the block of line 1 already"),
        ("grpc://. {\n}", "Corefile:1: grpc://.: grpc:// is not supported, only dns, tls, https"),
        ("tls://. {\n}", "Corefile:1: tls://.: needs the plugin tls, with a certificate and its key"),
        (".:http {\n}", "Corefile:1: .:http: 'http' is not a port"),
        ("a..b {\n}", "Corefile:1: a..b: is not a zone"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    """By file and line."""
    assert error_of(text).startswith(message)


OPTIONS = [
    (
        "kubernetes cluster.local {\n pods maybe\n }",
        "3: kubernetes: pods: must be disabled, insecure or verified, not 'maybe'",
    ),
    ("kubernetes cluster.local {\n ttl 3601\n }", "3: kubernetes: ttl: '3601' is not a number from 0 to 3600"),
    ("kubernetes cluster.local {\n zonal\n }", "3: kubernetes: unknown option 'zonal'"),
    ("kubernetes cluster.local {\n multicluster x\n }", "3: kubernetes: unknown option 'multicluster'"),
    ("kubernetes in-addr.arpa", "2: kubernetes: a zone that is not a reverse zone must be named"),
    (
        "kubernetes a {\n namespaces x\n namespace_labels y=z\n }",
        "2: kubernetes: namespaces and namespace_labels cannot",
    ),
    ("kubernetes a {\n labels a===b\n }", "3: kubernetes: labels: 'a===b' is not a label selector"),
    ("kubernetes a {\n ignore me\n }", "3: kubernetes: ignore: can be empty_service, not 'me'"),
    ("autopath @kubernetes", "2: autopath: @kubernetes needs the kubernetes plugin with `pods verified` beside it"),
    ("autopath @etcd", "2: autopath: '@etcd': only @kubernetes knows search paths"),
    ("forward .", "2: forward: takes 2 or more arguments"),
    ("forward . nowhere", "2: forward: upstream 'nowhere' is not ADDRESS or ADDRESS:PORT, and no file is named so"),
    ("forward . https://9.9.9.9", "2: forward: upstream 'https://9.9.9.9': https:// is not supported"),
    (
        "forward . 1.1.1.1 {\n policy best\n }",
        "3: forward: policy: can be random, round_robin or sequential, not 'best'",
    ),
    ("forward . 1.1.1.1 {\n doh_method GET\n }", "3: forward: unknown option 'doh_method'"),
    ("forward . 1.1.1.1 {\n expire soon\n }", "3: forward: expire: 'soon' is not a duration like 30s"),
    ("forward . 1.1.1.1 {\n failover NOERROR\n }", "3: forward: failover: NOERROR cannot be used"),
    ("forward . " + "1.1.1.1 " * 16, "2: forward: more than 15 upstreams"),
    ("cache {\n servfail 6m\n }", "3: cache: servfail: must not be longer than 5 minutes"),
    ("cache {\n prefetch 10 1m 5%\n }", "3: cache: prefetch: '5' is not a number from 10 to 90"),
    ("cache {\n serve_stale 1h later\n }", "3: cache: serve_stale: can be immediate or verify, not 'later'"),
    ("cache {\n frob\n }", "3: cache: unknown option 'frob'"),
    ("hosts {\n frob\n }", "3: hosts: unknown option 'frob'"),
    ("hosts {\n fallthrough_unsupported\n }", "2: hosts: fallthrough_unsupported needs fallthrough"),
    ("rewrite", "2: rewrite: needs a field"),
    ("rewrite name regex (a b", "2: rewrite: '(a' is not a regular expression"),
    ("rewrite name regex a {1}", "2: rewrite: '{1}' takes group 1, and 'a' has 0"),
    ("rewrite edns0 local set 0xffee abcd", "2: rewrite: edns0 is not supported"),
    ("rewrite ttl example.org x", "2: rewrite: 'x' is not SECONDS or MIN-MAX"),
    ("rewrite name exact a b answer", "2: rewrite: answer needs auto, name or value"),
    ('template IN A {\n answer "{{ .Frob }}"\n }', "3: template: answer: .Frob is not supported"),
    ('template IN A {\n answer "{{ range .Match }}{{ end }}"\n }', "3: template: answer: range is not supported"),
    ('template IN A {\n expr "true"\n }', "3: template: unknown option 'expr'"),
    ("template IN FROB", "2: template: 'FROB' is not a record type like A"),
    ("acl", "2: acl: needs a rule"),
    ("acl {\n deny net 10.0.0.0/8\n }", "3: acl: unknown option 'deny' (known: allow, block, filter, drop)"),
    ("acl {\n block net 10.0.0.300\n }", "3: acl: block: '10.0.0.300' does not appear to be"),
    ("acl {\n block 10.0.0.1\n }", "3: acl: block: '10.0.0.1' stands where `type` or `net` must"),
    ("bufsize 100", "2: bufsize: '100' is not a number from 512 to 4096"),
    ("dns64 2001:db8::/97", "2: dns64: '2001:db8::/97' is not a /32"),
    ("loadbalance weighted", "2: loadbalance: weighted needs a file"),
    ("health 8080", "2: health: '8080' is not ADDRESS:PORT"),
    ("reload 1s", "2: reload: the interval must be at least 2s"),
    ("log . {remove}", "2: log: unknown placeholder {remove}"),
    ("log {\n class frob\n }", "3: log: class: 'frob' is not success, denial, error or all"),
    ("errors {\n consolidate 5m (\n }", "3: errors: consolidate: '(' is not a regular expression"),
    ("file /nowhere/db", "2: file: /nowhere/db: No such file or directory"),
    ("transfer {\n }", "2: transfer: needs `to ADDRESS…` or `to *`"),
    ("header {\n response set tc\n }", "3: header: response: 'tc' is not one of aa, ra, rd"),
    ("bind nowhere0", "2: bind: 'nowhere0' is neither an address nor an interface that has one"),
    ("tls a b", "2: tls: [Errno 2] No such file or directory"),
    ("cancel 0s", "2: cancel: the timeout must be longer than nothing"),
]


@pytest.mark.parametrize(("body", "message"), OPTIONS, ids=[body.split("\n")[0] + message for body, message in OPTIONS])
def test_options_are_refused_by_name_and_line(body: str, message: str) -> None:
    """Plugin and option; nothing is passed over in silence."""
    assert error_of(f". {{\n {body}\n}}\n").startswith(f"Corefile:{message}")


def test_kubeadms_corefile() -> None:
    """What most clusters have is taken as it is."""
    config = config_of(KUBEADM)
    assert list(config.listeners()) == [Listener("dns", "0.0.0.0", 53)]
    assert config.watch is not None
    assert (config.watch.pods, config.watch.endpoints) == (False, True)
    assert config.health[0].lame_duck == 5.0
    assert config.pages() == [("::", 8080), ("::", 8181), ("::", 9153)]
    assert config.reload is not None
    names = [plugin.name for plugin in config.blocks[0].plugins if plugin.place]
    assert names == ["loadbalance", "kubernetes", "loop", "cache", "forward"]


def test_every_plugin_that_is_asked_for_is_there() -> None:
    """And none is both there and named as absent."""
    wanted = """acl any autopath bind bufsize cache cancel chaos debug dns64 errors file forward header health hosts
    kubernetes loadbalance local log loop metadata minimal nsid prometheus ready reload rewrite root template timeouts
    tls transfer whoami"""
    there = {name for names in PLUGINS.values() for name in names}
    assert set(wanted.split()) <= there
    assert not ABSENT & there
    for name in there:
        assert plugin_kind(Directive(Token(name, "Corefile", 1), [], None)).name == name


def test_keys() -> None:
    """Schemes, ports, networks as reverse zones, several zones on several addresses."""
    config = config_of("example.org example.net:1053 10.0.0.0/23 {\n bind 127.0.0.1 ::1\n whoami\n}\n")
    found = {str(listener): sorted(zones) for listener, zones in config.listeners().items()}
    reverse = [(str(i).encode(), b"0", b"10", b"in-addr", b"arpa") for i in (0, 1)]
    assert found["dns://127.0.0.1:53"] == [*reverse, (b"example", b"org")]
    assert found["dns://[::1]:53"] == found["dns://127.0.0.1:53"]
    assert found["dns://127.0.0.1:1053"] == [(b"example", b"net")]


def test_imported_files(tmp_path: Path) -> None:
    """By name and by pattern, relative to the file that imports; an error names the file it is in."""
    (tmp_path / "Corefile").write_text("import zones/*\n. {\n import common\n}\n")
    (tmp_path / "common").write_text("whoami\n")
    (tmp_path / "zones").mkdir()
    (tmp_path / "zones" / "a").write_text("example.org {\n any\n}\n")
    config = load(tmp_path / "Corefile", {})
    assert [[plugin.name for plugin in block.plugins] for block in config.blocks] == [["any"], ["whoami"]]
    digest = config.digest
    (tmp_path / "common").write_text("whoami\n\nfrob\n")
    with pytest.raises(ValueError, match=rf"{tmp_path}/common:3: frob: unknown plugin"):
        load(tmp_path / "Corefile", {})
    (tmp_path / "common").write_text("chaos\n")
    assert load(tmp_path / "Corefile", {}).digest != digest


def test_one_cluster_is_followed_in_one_way() -> None:
    """Two kubernetes plugins that would need two watches are refused, by the line of the second."""
    text = "a {\n kubernetes\n}\nb {\n kubernetes {\n  pods verified\n }\n}\n"
    assert error_of(text).startswith("Corefile:5: kubernetes: all kubernetes plugins must follow the same API server")
