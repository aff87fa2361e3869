"""The command line: one file per command. Only what a command needs is imported.

In: arguments. Out: a command's work, and an exit code. Never: a traceback for what the user can mend; errors are one
line on stderr, exit code 1 (2 for a wrong argument, 130 when interrupted).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

_COMMANDS = {
    "up": "Start a cluster on this machine, or one that was stopped.",
    "down": "Remove a cluster and everything of it.",
    "apiserver": "Serve the Kubernetes API by itself, on SQLite or etcd.",
    "controllers": "Run the controllers and the scheduler by themselves; of several, one leads.",
    "explain": "Say why a pod can, or cannot, reach a Service.",
    "dashboard": "Serve the live page: services, endpoints, traffic, and explain on a click.",
    "status": "Say what runs and what is ready.",
    "kubeconfig": "Print a cluster's kubeconfig.",
    "image": "Load, pull, list and remove the images that pods can run.",
    "node": "Let machines elsewhere join a cluster, or leave it.",
    "node-nat": "Translate the addresses of nodes in other networks, in any cluster.",
    "proxy": "Keep a node's rules for Services, in kube-proxy's place, in any cluster.",
    "ingress": "Serve Ingresses and Gateways by an HAProxy, in any cluster.",
    "loadbalancer": "Give Services of type LoadBalancer their addresses, and answer for them, in any cluster.",
    "dns": "Serve the cluster's DNS (what the pods behind kube-dns run).",
}


class _Lazy(click.Group):
    """Finds a command in the module of its name, when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"fairlead.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fairlead", message="fairlead %(version)s")
def root() -> None:
    """Kubernetes service discovery and service networking."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; never returns."""
    try:
        code = root.main(args=list(argv) if argv is not None else None, prog_name="fairlead", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _die("interrupted", 130)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "fairlead"
        _die(f"{error.format_message()} (see {where} --help)", 2)
    except click.ClickException as error:
        _die(error.format_message(), error.exit_code)
    except KeyboardInterrupt:
        _die("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _die(text: str, code: int) -> NoReturn:
    print(f"fairlead: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(code)
