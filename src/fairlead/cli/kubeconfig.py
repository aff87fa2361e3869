"""fairlead kubeconfig"""

from __future__ import annotations

import click

from fairlead.cluster.layout import Layout


@click.command(name="kubeconfig")
@click.option("--name", default="default", show_default=True, help="The cluster.")
def command(name: str) -> None:
    """Print the kubeconfig of a cluster's administrator. Keep it secret: it holds a private key."""
    file = Layout.of(name).kubeconfig("admin")
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise click.ClickException(f"there is no cluster named {name!r}; see: fairlead status") from None
    except PermissionError:
        raise click.ClickException(f"{file} is root's; run: sudo fairlead kubeconfig --name {name}") from None
    print(text, end="")
