"""The command line: errors are one line with an exit code, help is there, nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fairlead.cli import main


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    out, err = capsys.readouterr()
    return int(raised.value.code or 0), out, err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("sail",), 2, "No such command 'sail'"),
        (("up", "--colour", "red"), 2, "--colour"),
        (("down", "--name", "Bad Name"), 1, "'Bad Name' is not a cluster name"),
        (("kubeconfig", "--name", "nobody"), 1, "there is no cluster named 'nobody'"),
        (("status", "-o", "xml"), 2, "'xml'"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is on one line of stderr that begins with the program's name."""
    got, out, err = run(*arguments, capsys=capsys)
    assert (got, out) == (code, "")
    assert words in err
    assert err.startswith("fairlead: ")
    assert err.count("\n") == 1


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists the commands with what they do."""
    code, out, _ = run("--help", capsys=capsys)
    assert code == 0
    for command in ("up", "down", "status", "kubeconfig", "dns"):
        assert f"  {command} " in out


def test_help_imports_nothing_of_weight() -> None:
    """`fairlead --help` loads neither the server nor the HTTP stack nor YAML."""
    script = "import sys; from fairlead.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    script += "print([m for m in ('aiohttp', 'yaml', 'rich', 'cryptography', 'fairlead.cluster') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
