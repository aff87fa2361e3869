"""fairlead explain"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fairlead.client import Client
    from fairlead.explain.question import Question
    from fairlead.explain.report import Report
    from fairlead.survey.eyes import Eyes


@click.command(name="explain")
@click.argument("target", nargs=-1, required=True, metavar="svc/NAME[.NS][:PORT] | pod/NAME[.NS] | dns NAME | http://…")
@click.option("--from", "origin", metavar="pod/NAME[.NS]|node/NAME|outside", help="Where the packet starts.")
@click.option(
    "--via",
    type=click.Choice(["dns", "clusterip", "nodeport", "lb", "ingress"]),
    help="Default: as such a client does.",
)
@click.option("--to", metavar="ADDRESS", default="", help="With --via nodeport: the address that is asked.")
@click.option("--family", type=click.Choice(["IPv4", "IPv6"]), default=None, help="Default: the Service's first.")
@click.option("-n", "--namespace", default="default", show_default=True, help="For names without one.")
@click.option("--probe", is_flag=True, help="Also send real requests (http: a GET) and compare.")
@click.option("--probes", type=click.IntRange(1, 200), default=4, show_default=True, help="How many.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "mermaid", "svg"]), default="text", show_default=True
)
@click.option("--name", help="A cluster of this machine. Default: the kubeconfig's current one.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Any cluster; default: as kubectl finds it.")
def command(
    *,
    target: tuple[str, ...],
    origin: str | None,
    via: str | None,
    to: str,
    family: str | None,
    namespace: str,
    probe: bool,
    probes: int,
    output: str,
    name: str | None,
    kubeconfig: Path | None,
) -> None:
    """Say why a pod can, or cannot, reach a Service: hop by hop, with the kernel's own rules.

    Exit code 0 if it works, 1 if it is broken. Changes nothing; --probe sends real requests.
    """
    import msgspec

    from fairlead.client.config import ConfigError
    from fairlead.cluster.errors import ClusterError
    from fairlead.explain.question import Origin, QuestionError, check_address, parse_origin, parse_target

    try:
        question = parse_target(target, namespace)
        default = Origin("pod", question.name, question.namespace) if question.kind == "pod" else Origin("outside")
        question = msgspec.structs.replace(
            question,
            origin=parse_origin(origin, namespace) if origin else default,
            via=via,
            to=check_address(to) if to else "",
            family=family or "",
            probe=probes if probe else 0,
        )
        if question.kind == "dns" and not (origin and question.origin and question.origin.kind == "pod"):
            raise QuestionError("a name means something to a pod: add --from pod/NAME[.NAMESPACE]")
        if question.via == "dns" and not (question.origin and question.origin.kind == "pod"):
            raise QuestionError("--via dns needs --from pod/NAME[.NAMESPACE]")
    except QuestionError as error:
        raise click.UsageError(str(error)) from error
    try:
        report = asyncio.run(_answer(question, name, kubeconfig))
    except ConfigError as error:
        hint = "start a cluster: fairlead up; or say which: --name, --kubeconfig"
        raise click.ClickException(f"{error}; {hint}") from error
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    _show(report, output)
    raise SystemExit(0 if report.works else 1)


async def _answer(question: Question, name: str | None, kubeconfig: Path | None) -> Report:
    from fairlead.survey.answering import answer

    client, eyes = connect(name, kubeconfig)
    async with client:
        return await answer(client, eyes, question)


def connect(name: str | None, kubeconfig: Path | None) -> tuple[Client, Eyes]:
    """The API, and the way to see the cluster's kernels: this machine's own if it is here and one may, else agents."""
    from fairlead.client import Client
    from fairlead.client.config import from_kubeconfig
    from fairlead.cluster import config as configuration
    from fairlead.cluster.errors import ClusterError
    from fairlead.cluster.eyes import LocalEyes
    from fairlead.cluster.layout import Layout, clusters
    from fairlead.survey.eyes import AgentEyes

    if name:
        configuration.check_name(name)
        layout = Layout.of(name)
        if not layout.config.exists():
            raise ClusterError(f"there is no cluster named {name!r}", "see: fairlead status")
        client = Client.from_kubeconfig(layout.kubeconfig("admin"))
        return client, LocalEyes(layout, configuration.load(layout.config), client)
    connection = from_kubeconfig(kubeconfig)
    client = Client.from_connection(connection)
    if os.geteuid() == 0:
        for each in clusters():
            layout = Layout.of(each)
            if not layout.config.exists():
                continue
            config = configuration.load(layout.config)
            if client.server in (config.api_url, f"https://{config.api_ip}:6443"):
                return client, LocalEyes(layout, config, client)
    return client, AgentEyes(client)


def _show(report: Report, output: str) -> None:
    from fairlead.explain import render

    if output == "json":
        import orjson

        print(orjson.dumps(report.document(), option=orjson.OPT_INDENT_2).decode())
    elif output == "mermaid":
        print(render.mermaid(report))
    elif output == "svg":
        from fairlead.explain.picture import svg

        print(svg(report))
    else:
        terminal = sys.stdout.isatty()
        color = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        width = shutil.get_terminal_size().columns if terminal else 0
        print(render.text(report, color=color, width=width))
