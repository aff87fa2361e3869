"""fairlead status"""

from __future__ import annotations

import click

from fairlead.cluster.errors import ClusterError


@click.command(name="status")
@click.option("--name", help="One cluster; default: all of this machine.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(name: str | None, output: str) -> None:
    """Say what runs and what is ready. Exit code 1 if a cluster that was asked for is not ready."""
    from fairlead.cluster import state
    from fairlead.cluster.layout import clusters

    try:
        found = [state.of(each) for each in ([name] if name else clusters())]
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    if output == "json":
        import orjson

        print(orjson.dumps([s.document() for s in found], option=orjson.OPT_INDENT_2).decode())
    elif not found:
        print("No cluster on this machine. Start one: fairlead up")
    else:
        print("\n".join(s.text() for s in found))
    if name and not found[0].ready:
        raise SystemExit(1)
