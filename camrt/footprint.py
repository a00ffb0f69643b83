"""The memory that an explanation, or the bare network, takes at its peak: each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camrt.bundle import open_bundle
from camrt.errors import one_line
from camrt.explainer import Explainer, load
from camrt.memory import device_memory, peak_resident
from camrt.optimised import open_graph
from camrt.providers import Choice
from camrt.runtime import Session
from camrt.session import open_session

CODE = "from camrt.footprint import report; report()"
REPEATS = 3  # after which the arena has its size
LIMIT = 3600  # seconds for the process: thousands of masked images on a CPU take many minutes


@dataclass(frozen=True)
class Footprint:
    """Peak memory in MB.

    Attributes
    ----------
    resident : float
        Of the process in main memory.
    device : float or None
        Used on all GPUs while the process ran, less what was used before; None without a GPU.
    """

    resident: float
    device: float | None


def footprint(
    explainer: Explainer, source: Path | None, method: str, parameters: Mapping[str, Any], *, bare: int | None
) -> Footprint | None:
    """Return what a new process takes that does what the explainer does; None, with a warning, where that fails.

    Parameters
    ----------
    explainer : Explainer
    source : Path or None
        The uncut model, for the bare network; without it head → tail.
    method : str
    parameters : mapping
        Of the method.
    bare : int or None
        Run the bare network instead of explaining, on one image and on so many in a call.
    """
    engine, sessions = explainer.engine, explainer.engine.sessions
    asked = {
        "bundle": str(engine.bundle.folder), "source": str(source) if source else None, "providers": sessions.choice.names,
        "threads": sessions.threads, "max_masked_batch": engine.max_masked_batch, "cache": engine.bundle.cache.enabled,
        "gpu_mem_limit": sessions.choice.gpu_mem_limit, "method": method, "parameters": dict(parameters), "bare": bare,
    }  # fmt: skip
    before = device_memory()
    try:
        found = _ask(json.dumps(asked))
        device = None if before is None or found["device"] is None else round(found["device"] - before, 1)
        return Footprint(float(found["resident"]), device)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(
            f"Memory was not measured: the process that does it failed ({one_line(error)}).", RuntimeWarning, stacklevel=2
        )
        return None


def _ask(asked: str) -> Any:
    """Return what a new process prints last."""
    command = [sys.executable, "-c", CODE, asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it was not done after {LIMIT} seconds") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ChildProcessError(last[0])
    return json.loads(done.stdout.strip().rpartition("\n")[2])


def report() -> None:
    """Do what the command line asks, and print the memory it took: what `footprint` runs."""
    asked = json.loads(sys.argv[1])
    run = _explain if asked["bare"] is None else _bare
    kept = run(asked)  # what is let go of is no longer on the device
    print(json.dumps({"resident": peak_resident(), "device": device_memory()}))
    del kept


def _explain(asked: dict[str, Any]) -> Explainer:
    limits = {name: asked[name] for name in ("max_masked_batch", "threads", "cache", "gpu_mem_limit")}
    explainer = load(asked["bundle"], asked["providers"], **limits)
    pixels = np.zeros((*explainer.manifest.size, 3), np.uint8)
    pixels[::2] = 255
    for _ in range(REPEATS):
        explainer.explain(pixels, method=asked["method"], **asked["parameters"])
    return explainer


def _bare(asked: dict[str, Any]) -> list[Session]:
    choice = Choice(tuple(asked["providers"]), explicit=True, gpu_mem_limit=asked["gpu_mem_limit"])
    bundle = open_bundle(asked["bundle"], cache=asked["cache"])
    if asked["source"] is None:
        sessions = [open_graph(bundle, graph, choice, asked["threads"])[0] for graph in ("head", "tail")]
    else:
        sessions = [open_session(Path(asked["source"]), choice, asked["threads"])[0]]
    for size in (1, max(1, asked["bare"])) * REPEATS:
        values = np.ones((size, *bundle.manifest.image.shape[1:]), np.float32)
        for session in sessions:
            values = session.run(None, {session.get_inputs()[0].name: values})[0]
    return sessions
