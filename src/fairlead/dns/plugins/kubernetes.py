"""`kubernetes`: the cluster's names from the watch; `autopath`: the search path answered in one round trip.

Stands in the chain before the outside. Invariants: an answer of the cluster's is remembered only until what it follows
from changes; a denial that autopath would replace for some clients is never given to these.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from fairlead.dns.corefile import Directive
from fairlead.dns.export import records
from fairlead.dns.message import AA, AAAA, AXFR, CNAME, IN, IXFR, NOERROR, NXDOMAIN, REFUSED, SERVFAIL, SOA, A, Record
from fairlead.dns.names import MAX_NAME, is_reverse, split_name
from fairlead.dns.options import Watch
from fairlead.dns.plugins.base import (
    Handler,
    Outcome,
    Plugin,
    Reply,
    Request,
    Site,
    Zones,
    duration,
    fall_through,
    no_options,
    number,
    zones,
)
from fairlead.dns.reply import NEVER, WHILE, failed, settled, then, unpacked
from fairlead.dns.zone import MAX_CHAIN, Answer, Pods, Zone
from fairlead.dns.zones import Labels

_PODS: dict[str, Pods] = {"disabled": "disabled", "insecure": "insecure", "verified": "verified"}
_OPTIONS = (
    "endpoint", "endpoint_pod_names", "fallthrough", "ignore", "kubeconfig", "labels", "namespace_labels", "namespaces",
    "noendpoints", "pods", "startup_timeout", "tls", "ttl", "apiserver_qps", "apiserver_burst",
    "apiserver_max_inflight",
)  # fmt: skip


class Kubernetes(Plugin):
    """The zones of `kubernetes [ZONES…]`."""

    name = "kubernetes"
    place = 330
    once = False

    def parse(self, directive: Directive) -> None:
        self.zones = zones(directive, directive.args, self.block.zones)
        forward = [labels for labels in self.zones.names if not is_reverse(labels)]
        if not forward:
            raise directive.error("a zone that is not a reverse zone must be named")
        self.domains = tuple(".".join(label.decode("latin-1") for label in labels) for labels in forward)
        self.reverse = Zones(tuple(labels for labels in self.zones.names if is_reverse(labels)))
        self.everything = () in forward
        if self.everything:
            self.reverse = Zones(((b"in-addr", b"arpa"), (b"ip6", b"arpa")))
        self.ttl, self.ignore_empty = 5, False
        self.pods: Pods = "disabled"
        self.exposed: frozenset[str] | None = None
        self.falls: Zones | None = None
        endpoints, pod_names, endpoint = True, False, ""
        kubeconfig: str | None = None
        context = labels_selector = namespace_labels = ""
        tls: tuple[str, str, str] | None = None
        for option in directive.children:
            word, args = option.name, option.args
            if word not in {"fallthrough", "labels", "namespace_labels"}:
                no_options(option)
            if word == "endpoint":
                option.counted(1)
                endpoint = args[0] if "://" in args[0] else f"http://{args[0]}"
            elif word == "tls":
                certificate, key, authority = (str(self.block.path(path)) for path in option.counted(3))
                tls = certificate, key, authority
            elif word == "kubeconfig":
                option.counted(1, 2)
                kubeconfig, context = str(self.block.path(args[0])), args[1] if len(args) > 1 else ""
            elif word == "namespaces":
                self.exposed = frozenset(option.counted(1, 1000))
            elif word in {"labels", "namespace_labels"}:
                selector = " ".join(option.counted(1, 1000))
                _check_selector(option, selector)
                if word == "labels":
                    labels_selector = selector
                else:
                    namespace_labels = selector
            elif word == "pods":
                (mode,) = option.counted(1)
                if mode not in _PODS:
                    raise option.error(f"must be disabled, insecure or verified, not {mode!r}")
                self.pods = _PODS[mode]
            elif word == "endpoint_pod_names":
                option.counted(0)
                pod_names = True
            elif word == "ttl":
                self.ttl = number(option, option.counted(1)[0], 0, 3600)
            elif word == "noendpoints":
                option.counted(0)
                endpoints = False
            elif word == "ignore":
                if option.counted(1) != ["empty_service"]:
                    raise option.error(f"can be empty_service, not {args[0]!r}")
                self.ignore_empty = True
            elif word == "fallthrough":
                self.falls = fall_through(option)
            elif word == "startup_timeout":
                duration(option, option.counted(1)[0])  # we answer at once; until all was listed, SERVFAIL
            elif word.startswith("apiserver_") and word in _OPTIONS:
                if word == "apiserver_qps":
                    _positive(option, option.counted(1)[0])
                else:
                    number(option, option.counted(1)[0], 0, 1 << 31)
            else:
                directive.unknown(option, _OPTIONS)
        if self.exposed is not None and namespace_labels:
            raise directive.error("namespaces and namespace_labels cannot both be set")
        self.watch = Watch(
            kubeconfig=kubeconfig,
            context=context,
            endpoint=endpoint,
            tls=tls,
            labels=labels_selector,
            namespace_labels=namespace_labels,
            endpoints=endpoints,
            pods=self.pods == "verified",
            pod_names=pod_names,
        )

    def build(self, following: Handler, site: Site) -> Handler:
        self.views = tuple(
            Zone(
                domain,
                self.ttl,
                self.pods,
                site.own,
                book=site.book,
                exposed=self.exposed,
                ignore_empty=self.ignore_empty,
            )
            for domain in self.domains
        )
        for view in self.views:
            site.wholes[split_name(view.domain)] = lambda view=view: (view.soa(), records(view))  # type: ignore[misc]
        site.ready.append(lambda: "" if site.book.synced else "kubernetes")
        return ClusterNames(self.views, self.reverse, self.falls, following, site).handle


def _positive(option: Directive, text: str) -> None:
    try:
        if float(text) >= 0:
            return
    except ValueError:
        pass
    raise option.error(f"{text!r} is not a number of at least 0")


def _check_selector(option: Directive, text: str) -> None:
    from fairlead.api.errors import StatusError
    from fairlead.api.selectors import LabelSelector

    try:
        LabelSelector.parse(text)
    except (StatusError, ValueError) as error:
        raise option.error(f"{text!r} is not a label selector: {error}") from None


class ClusterNames:
    """The handler: names of the `views`, and of the `reverse` zones for the first of them. A name that does not exist
    goes on if it is in `falls`."""

    def __init__(
        self, views: tuple[Zone, ...], reverse: Zones, falls: Zones | None, following: Handler, site: Site
    ) -> None:
        self._views, self._following, self._site = views, following, site
        self._reverse, self._falls = reverse, falls
        self._primary = views[0]

    def handle(self, request: Request) -> Outcome:
        """What the cluster says of a name, or what others say of one that is not the cluster's."""
        query = request.query
        labels = query.labels
        if is_reverse(labels) and (origin := self._reverse.match(labels)) is not None:
            return self._reversed(request, origin)
        for view in self._views:
            if view.holds(labels):
                break
        else:
            return self._following(request)
        if query.klass != IN or query.type in {AXFR, IXFR}:
            return failed(REFUSED)
        answer = view.find(labels, query.type)
        rcode, records, additional, depends_on, keep, unresolved = answer
        if rcode == NXDOMAIN and self._falls is not None and labels in self._falls:
            return then(self._following(request), _not_kept)
        if unresolved:
            return self._chased(request, answer)
        authority = () if records or rcode == SERVFAIL else (view.soa(),)
        depends = () if depends_on is None else (depends_on,)
        return Reply(rcode, records, authority, additional, AA, WHILE if keep else NEVER, depends)

    def _reversed(self, request: Request, origin: Labels) -> Outcome:
        query = request.query
        if query.klass != IN or query.type in {AXFR, IXFR}:
            return failed(REFUSED)
        view = self._primary
        answer = view.find_reverse(query.labels, query.type)
        if answer is not None:
            return Reply(answer.rcode, answer.records)
        if self._falls is not None and query.labels in self._falls:
            return then(self._following(request), _not_kept)
        soa = view.soa(_wire(origin))
        if query.labels == origin and query.type == SOA:
            return Reply(NOERROR, (soa,))
        return Reply(NOERROR if query.labels == origin else NXDOMAIN, authority=(soa,))

    def _chased(self, request: Request, answer: Answer) -> Outcome:
        """A CNAME that leads out of the zone: what the whole server says of its target. Without anything there: the
        CNAME, and SERVFAIL if it could not be asked, because that denies nothing."""
        if request.depth >= MAX_CHAIN:
            return failed(SERVFAIL)

        def joined(found: Reply) -> Reply:
            if found.rcode in {NOERROR, NXDOMAIN}:
                records = tuple(record for record in unpacked(found).answers if record.klass == IN)
                return Reply(NOERROR, answer.records + records, keep=NEVER)
            if found.rcode == REFUSED:  # nobody to ask
                return Reply(NOERROR, answer.records)
            return failed(SERVFAIL)

        return then(self._site.resolve(request.asking(answer.unresolved, request.query.type)), joined)


def _not_kept(reply: Reply) -> Reply:
    """What comes from behind us may be ours in a moment."""
    return reply._replace(keep=NEVER)


def _wire(labels: Labels) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


PATIENCE = 2.0
"""s that autopath waits for an upstream. Then the client gets the denial of the name it asked for, which is true, and
goes on by itself; less than a resolver waits before it asks again."""


class Autopath(Plugin):
    """`autopath [ZONES…] @kubernetes | FILE`."""

    name = "autopath"
    place = 250

    def parse(self, directive: Directive) -> None:
        args = directive.counted(1, 100)
        no_options(directive)
        self.zones = zones(directive, args[:-1], self.block.zones)
        self.search: tuple[Labels, ...] = ()
        self.by_client = args[-1] == "@kubernetes"
        if args[-1].startswith("@") and not self.by_client:
            raise directive.error(f"{args[-1]!r}: only @kubernetes knows search paths")
        self.more = () if not self.by_client else _search_of("/etc/resolv.conf")
        if not self.by_client:
            try:
                self.search = _search_of(str(self.block.path(args[-1])), strict=True)
            except OSError as error:
                raise directive.error(f"{args[-1]}: {error.strerror}") from None
        self.domains: tuple[Labels, ...] = ()  # of the kubernetes plugin beside it; set when all is read

    def build(self, following: Handler, site: Site) -> Handler:
        return _Path(self, following, site).handle


def _search_of(path: str, strict: bool = False) -> tuple[Labels, ...]:
    """The search domains of a resolv.conf."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        if strict:
            raise
        return ()
    for line in reversed(lines):
        found = line.split()
        if found[:1] == ["search"]:
            return zones(Directive.__new__(Directive), found[1:]).names
    return ()


class _Path:
    """Where the answer is NXDOMAIN and the name is one that the client's resolver made with the first domain of its
    search path, the rest of the path is tried here, and what is found comes with a CNAME that leads there."""

    def __init__(self, plugin: Autopath, following: Handler, site: Site) -> None:
        self._zones, self._following, self._site = plugin.zones, following, site
        self._search, self._more, self._by_client = plugin.search, plugin.more, plugin.by_client
        self._domains = plugin.domains

    def handle(self, request: Request) -> Outcome:
        outcome = self._following(request)
        if isinstance(outcome, Reply) and (outcome.rcode != NXDOMAIN or request.query.type not in {A, AAAA}):
            return outcome
        return then(outcome, lambda reply: self._go_on(request, reply))

    def _go_on(self, request: Request, reply: Reply) -> Outcome:
        labels = request.query.labels
        if reply.rcode != NXDOMAIN or request.query.type not in {A, AAAA} or labels not in self._zones:
            return reply
        if not self._by_client:
            found = self._search
            return self._walk(request, reply, found, "") if found and _below(labels, found[0]) else reply
        for domain in self._domains:
            size = len(labels) - len(domain)
            if labels[size:] == domain and size >= 3 and labels[size - 1] == b"svc":
                break
        else:
            return reply
        namespace = labels[size - 2].decode("latin-1")
        if self._site.book.namespace_of(request.client) != namespace:
            return reply._replace(not_for=namespace)
        svc = (b"svc", *domain)
        return self._walk(request, reply, ((labels[size - 2], *svc), svc, domain, *self._more), namespace)

    def _walk(self, request: Request, first: Reply, search: tuple[Labels, ...], namespace: str) -> Outcome:
        base = request.query.labels[: len(request.query.labels) - len(search[0])]
        wire = request.query.question[: sum(len(label) + 1 for label in base)]  # as the client wrote it
        candidates = [wire + _wire(suffix) for suffix in (*search[1:], ())]
        return self._try(request, first, [name for name in candidates if len(name) <= MAX_NAME], namespace)

    def _try(self, request: Request, first: Reply, candidates: list[bytes], namespace: str) -> Outcome:
        """What the first of the candidates that exists is. `first.depends` grows with what was looked at."""
        depends = first.depends
        while candidates:
            target, *candidates = candidates
            outcome = self._following(request.asking(target, request.query.type))
            if not isinstance(outcome, Reply):
                return self._later(outcome, request, first._replace(depends=depends), [target, *candidates], namespace)
            depends += outcome.depends
            if outcome.rcode == NOERROR:
                return self._found(request, outcome._replace(depends=depends), target, namespace)
            if outcome.rcode != NXDOMAIN:
                break
        return first._replace(keep=NEVER)

    async def _later(
        self, outcome: Outcome, request: Request, first: Reply, candidates: list[bytes], namespace: str
    ) -> Reply:
        try:
            async with asyncio.timeout(PATIENCE):
                reply = await settled(outcome)
        except TimeoutError:
            return first._replace(keep=NEVER)
        depends = first.depends + reply.depends
        if reply.rcode == NXDOMAIN:
            rest = self._try(request, first._replace(depends=depends), candidates[1:], namespace)
            return await settled(rest)
        if reply.rcode != NOERROR:  # an upstream that cannot say: what is true of the first name is true all the same
            return first._replace(keep=NEVER)
        return self._found(request, reply._replace(depends=depends), candidates[0], namespace)

    def _found(self, request: Request, reply: Reply, target: bytes, namespace: str) -> Reply:
        self._site.metrics.add("coredns_autopath_success_total", (("server", self._site.server),))
        reply = unpacked(reply)
        if not reply.answers:
            return reply._replace(keep=reply.keep if namespace else NEVER, only_for=namespace)
        ttl = min(record.ttl for record in reply.answers)
        link = Record(request.query.name, CNAME, ttl, target)
        keep = reply.keep if namespace or not self._by_client else NEVER
        return reply._replace(answers=(link, *reply.answers), authority=(), keep=keep, only_for=namespace)


def _below(labels: Labels, domain: Labels) -> bool:
    return len(labels) > len(domain) and labels[len(labels) - len(domain) :] == domain
