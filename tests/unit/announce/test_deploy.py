"""The manifest of the load balancer that runs alone: the API takes it, and its flags are the command's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from fairlead.announce.standalone import NAME
from fairlead.api import kinds
from fairlead.api.addresspool import parse_pool
from fairlead.api.defaults import apply
from fairlead.api.fields import check
from fairlead.api.validation import validate_create
from fairlead.cli.loadbalancer import command

DEPLOY = Path(__file__).parents[3] / "deploy" / "loadbalancer.yaml"


def _manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(DEPLOY.read_text()))


def test_manifests() -> None:
    """No unknown field, nothing that validation refuses; both parts have the same pool, and the rights name the Secret
    and the Lease."""
    pools = set()
    for manifest in _manifests():
        if manifest["kind"] == "Role":
            assert {name for rule in manifest["rules"] for name in rule.get("resourceNames", ())} == {NAME}
        resource = kinds.of_object(manifest)
        assert resource is not None
        assert not check(resource, manifest).unknown, manifest["metadata"]["name"]
        apply(resource, manifest)
        assert validate_create(resource, manifest) == [], manifest["metadata"]["name"]
        for container in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            flags = dict(argument.split("=", 1) for argument in container["args"])
            assert flags["--role"] == manifest["metadata"]["name"]
            pools.add(str(parse_pool(flags["--pool"])))
    assert len(pools) == 1


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    """A pool that is none, a key that is none, no kubeconfig: one line that names the flag."""
    short = tmp_path / "key"
    short.write_text("short")
    for arguments, words in (
        (["--pool", "x"], "--pool: 'x' is no range of addresses"),
        (["--pool", "192.0.2.0/28", "--announce-key-file", str(tmp_path / "none")], "No such file"),
        (["--pool", "192.0.2.0/28", "--announce-key-file", str(short)], "holds no key"),
        (["--pool", "192.0.2.0/28", "--kubeconfig", str(tmp_path / "none")], "flag --kubeconfig"),
        ([], "Missing option '--pool'"),
    ):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code != 0
        assert words in result.output
        assert "Traceback" not in result.output
