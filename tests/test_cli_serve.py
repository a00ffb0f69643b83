"""camrt serve from the command line: what it refuses, in one line, before it listens."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from camrt.cli import camrt

from .conftest import ROOT

pytest.importorskip("fastapi")

GOOD = "a-token-of-sixteen-and-more"


def refused(*arguments: str, code: int = 2, **environment: str) -> str:
    result = CliRunner().invoke(camrt, ["serve", *arguments], env=environment)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize(("content", "words"), [
    (b"", "holds no token"),
    (b"short\n", "too short"),
    (GOOD.encode() + b"\nwith a space in the middle\n", "1 of 2 tokens"),
    (b"\xff\xfe\x00" * 20, "cannot be read as a list of tokens"),
    (bytes(2 << 20), "cannot be read as a list of tokens"),
])  # fmt: skip
def test_a_file_that_holds_no_tokens_is_refused(tmp_path, content, words):
    (tmp_path / "tokens").write_bytes(content)
    assert words in refused("shapes", "--token-file", str(tmp_path / "tokens"))


def test_weak_tokens_of_the_environment_are_refused_and_not_told():
    told = refused("shapes", CAMRT_TOKENS=f"{GOOD},hunter2")
    assert "1 of 2 tokens" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(("arguments", "words", "code"), [
    (["shapes", "shapes"], "Two bundles are called 'shapes'", 2),
    (["shapes", "--methods", "grad-cm"], "Did you mean 'grad-cam'", 2),
    (["shapes", "--host", "no.such.host.example"], "no address to listen at", 2),
    (["shapes", "--host", "203.0.113.7"], "cannot be bound", 2),
    (["nothing"], "nothing", 1),
    (["shapes", "--port", "99999"], "--port", 2),
    (["shapes", "--timeout", "0"], "--timeout", 2),
    ([], "BUNDLE", 2),
])  # fmt: skip
def test_what_cannot_be_served_is_refused(arguments, words, code):
    assert words in refused(*arguments, code=code)


def test_a_port_that_is_taken_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be bound" in refused("shapes", "--port", str(taken.getsockname()[1]))


def test_listening_beyond_loopback_without_tokens_is_warned_of():
    assert "everyone who reaches 203.0.113.7" in refused("shapes", "--host", "203.0.113.7")


def test_without_the_extra_the_command_says_what_to_install_and_others_work():
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('fastapi', 'uvicorn', 'starlette', 'prometheus_client', 'pydantic'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from camrt.__main__ import main\n"
        "sys.argv = ['camrt', *sys.argv[1:]]\n"
        "main()"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)

    done = run("serve", "shapes")
    assert done.returncode == 1
    assert "pip install 'camrt[serve]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("--help").returncode == run("serve", "--help").returncode == 0
