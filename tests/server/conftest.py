"""Servers for tests: real processes on a free port of loopback, and one in this process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.conftest import ROOT

PATIENCE = 60  # seconds for a server to start or to end


@dataclass
class Served:
    """A server process: where it listens, and what it has written to stderr so far."""

    url: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def end(self, how: int = signal.SIGTERM) -> int:
        """End it by a signal; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Served]:
    """Run `camrt serve` with these arguments until the end of the block."""
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "camrt", "serve", *arguments, "--port", "0"]
    env = {k: v for k, v in os.environ.items() if k != "CAMRT_TOKENS"} | environment
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env, cwd=ROOT)
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Serving .* at (http://\S+?)/?$", line):
                break
        else:
            pytest.fail(f"camrt serve ended with {process.wait(PATIENCE)}: {''.join(lines)}")
        reading = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
        reading.start()
        yield Served(found.group(1), process, lines)
        process.kill()
        reading.join(PATIENCE)
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stderr.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server of the built-in bundle."""
    with serving("shapes") as server:
        yield server
