"""The user's kubeconfig: merged into, taken out of, otherwise left alone."""

from pathlib import Path

import pytest
import yaml

from fairlead.apiserver.pki import KeyPair
from fairlead.cluster import kubeconfig
from fairlead.cluster.errors import ClusterError
from fairlead.cluster.issuing import kubeconfig as document

OURS = document("fairlead-lab", "https://127.0.0.1:1", b"ca", KeyPair(b"cert", b"key"))
THEIRS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
    "users": [{"name": "prod", "user": {"token": "t"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "prod"}}],
    "current-context": "prod",
    "preferences": {"colors": True},
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$KUBECONFIG points at a file that is not there yet."""
    target = tmp_path / "deep" / "config"
    monkeypatch.setenv("KUBECONFIG", str(target))
    return target


def test_a_new_file_has_our_context_as_current(file: Path) -> None:
    """Without a kubeconfig one is made, readable by its owner only."""
    assert kubeconfig.merge(OURS) == file
    written = yaml.safe_load(file.read_text())
    assert written["current-context"] == "fairlead-lab"
    assert [c["name"] for c in written["contexts"]] == ["fairlead-lab"]
    assert file.stat().st_mode & 0o077 == 0
    assert not file.with_name("config.lock").exists()


def test_others_stay_and_ours_is_replaced(file: Path) -> None:
    """Merging twice adds once; what was there stays; removal gives the rest back."""
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(THEIRS))
    kubeconfig.merge(OURS)
    kubeconfig.merge(OURS)
    written = yaml.safe_load(file.read_text())
    assert [u["name"] for u in written["users"]] == ["prod", "fairlead-lab"]
    kubeconfig.remove("fairlead-lab")
    assert yaml.safe_load(file.read_text()) == {**THEIRS, "current-context": ""}


def test_removal_keeps_another_current_context(file: Path) -> None:
    """The current context is only cleared if it was ours."""
    kubeconfig.merge(OURS)
    written = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**written, "current-context": "prod"}))
    kubeconfig.remove("fairlead-lab")
    assert yaml.safe_load(file.read_text())["current-context"] == "prod"


def test_the_file_that_has_the_context_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several files in $KUBECONFIG the one that has our context is used, else the first."""
    first, second = tmp_path / "a", tmp_path / "b"
    second.write_text(yaml.safe_dump(OURS))
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    assert kubeconfig.merge(OURS) == second
    assert not first.exists()


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "just text"])
def test_what_is_no_kubeconfig_is_left_as_it_is(file: Path, text: str) -> None:
    """A file we can't understand is named in the error and not touched."""
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ClusterError, match=str(file)):
        kubeconfig.merge(OURS)
    assert file.read_text() == text
