"""fairlead down"""

from __future__ import annotations

import click

from fairlead.cluster.errors import ClusterError


@click.command(name="down")
@click.option("--name", default="default", show_default=True, help="The cluster to remove.")
@click.option("--all", "everything", is_flag=True, help="Remove every cluster of this machine.")
def command(name: str, everything: bool) -> None:
    """Remove a cluster and all of it: processes, namespaces, links, rules, mounts, files, the kubectl context."""
    from fairlead.cluster import lifecycle
    from fairlead.cluster.layout import clusters

    try:
        for each in clusters() if everything else [name]:
            if lifecycle.down(each):
                print(f"Cluster {each!r} is gone.")
            elif not everything:
                raise click.ClickException(f"there is no cluster named {each!r}; see: fairlead status")
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
