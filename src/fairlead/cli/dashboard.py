"""fairlead dashboard"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import webbrowser
from pathlib import Path

import click


@click.command(name="dashboard")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="On 127.0.0.1; 0: any.")
@click.option("--open/--no-open", "browser", default=False, show_default=True, help="Open it in a browser.")
@click.option("--name", help="A cluster of this machine. Default: the kubeconfig's current one.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Any cluster; default: as kubectl finds it.")
def command(*, port: int, browser: bool, name: str | None, kubeconfig: Path | None) -> None:
    """Serve the live page: services, endpoints, pods and traffic, with `explain` on a click.

    On this machine's loopback only, for who has the address that is printed; with your rights in the cluster. Ends with
    Ctrl-C.
    """
    from fairlead.client.config import ConfigError
    from fairlead.cluster.errors import ClusterError

    try:
        asyncio.run(_serve(port, browser, name, kubeconfig))
    except (ClusterError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(port: int, browser: bool, name: str | None, kubeconfig: Path | None) -> None:
    from fairlead.api.errors import StatusError
    from fairlead.cli.explain import connect
    from fairlead.dashboard.feed import Feed, running
    from fairlead.dashboard.server import ADDRESS, DashboardServer

    client, eyes = connect(name, kubeconfig)
    async with client:
        try:
            async with asyncio.timeout(5):
                await client.get_raw("/version")
        except (StatusError, TimeoutError) as error:
            raise click.ClickException(f"the API server at {client.server} does not answer: {error}") from error
        feed = Feed(client, eyes)
        server = DashboardServer(client, eyes, feed, port)
        try:
            await server.start()
        except OSError as error:
            raise click.ClickException(f"can't listen on {ADDRESS}:{port}: {error.strerror}; try --port 0") from error
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        print(f"The live page: {server.url}", flush=True)
        if browser:
            await asyncio.to_thread(webbrowser.open, server.url)
        async with running(feed) as following:
            waiter = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait([following, waiter], return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            await server.stop()
            with contextlib.suppress(asyncio.CancelledError):
                for task in done - {waiter}:
                    await task
