"""fairlead image"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fairlead.images.store import Store


@click.group(name="image")
def command() -> None:
    """The images that this machine's clusters can run: one store for all of them."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def load(file: Path) -> None:
    """Load images from FILE: what `docker save` wrote, an OCI archive, or a directory with an OCI layout."""
    from fairlead.images import skopeo
    from fairlead.images.store import ImageError

    try:
        for image in skopeo.load(_store(), file.absolute()):
            print(image.reference)
    except (ImageError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@command.command()
@click.argument("name")
@click.option("--authfile", type=click.Path(path_type=Path, exists=True), help="Credentials: a Docker config.json.")
def pull(name: str, authfile: Path | None) -> None:
    """Pull NAME from its registry."""
    import orjson

    from fairlead.images import skopeo
    from fairlead.images.references import parse
    from fairlead.images.store import ImageError

    try:
        auth = orjson.loads(authfile.read_bytes()) if authfile is not None else None
        image = skopeo.pull(_store(), parse(name), auth)
    except (ImageError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    print(f"{image.reference} {image.digest}")


@command.command(name="list")
def list_() -> None:
    """List the images."""
    rows = [("IMAGE", "DIGEST", "SIZE", "AGE")]
    for image in _store().list():
        size = f"{image.size / 1e6:.1f}MB"
        rows.append(
            (image.reference, image.digest.removeprefix("sha256:")[:12], size, _age(time.time() - image.created))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("   ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


@command.command()
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Remove images by name. Containers that run keep running."""
    from fairlead.images.references import parse
    from fairlead.images.store import ImageError

    for name in names:
        try:
            gone = _store().remove(parse(name))
        except (ImageError, OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        if not gone:
            raise click.ClickException(f"there is no image {parse(name)}; see: fairlead image list")
        print(f"{parse(name)} is gone.")


def _store() -> Store:
    from fairlead.cluster.layout import images_directory
    from fairlead.images.store import Store

    return Store(images_directory())


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
