"""What this machine and this build of ONNX Runtime offer; every provider is really tried."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camrt.bundle import find_bundle
from camrt.errors import CamrtError, one_line
from camrt.libraries import ADVICE, installed, lack_of
from camrt.nvidia import find_driver
from camrt.placement import place
from camrt.providers import DEFAULT, NAMES, Choice, available, install_line
from camrt.runtime import Session, telemetry, versions
from camrt.session import open_session

ELSEWHERE = {"coreml": "macOS", "directml": "Windows"}
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Offer:
    """What came of trying a provider.

    Attributes
    ----------
    built_in : bool
        It is in this build of ONNX Runtime.
    runs : bool
        A small network really ran on it.
    reason : str
        Why it does not run, or what it left to the CPU.
    install : str
        What to do so that it is built in, or runs.
    """

    built_in: bool
    runs: bool
    reason: str = ""
    install: str = ""


@dataclass(frozen=True)
class Cores:
    """Processors: those of the machine, those this process may use, and the share of them that a container grants."""

    machine: int
    allowed: int
    quota: float | None


def offers() -> dict[str, Offer]:
    """Try every provider that camrt knows, and return what came of it."""
    have = available()
    return {name: _try(name) if name in have else _absent(name) for name in NAMES}


def _absent(name: str) -> Offer:
    system = ELSEWHERE.get(name)
    return Offer(False, False, f"for {system} alone" if system else "", install_line(name))


def _try(name: str) -> Offer:
    """Run the first part of the built-in network on a provider."""
    try:
        session, _ = open_session(find_bundle("shapes") / "head.onnx", Choice((name,), explicit=True))
    except CamrtError as error:
        return Offer(True, False, lack_of(name) or str(error), ADVICE.get(name, ""))
    try:
        (image,) = session.get_inputs()
        session.run(None, {image.name: np.zeros((1, *image.shape[1:]), np.float32)})
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        return Offer(True, False, f"it starts, but runs nothing: {one_line(error)}", ADVICE.get(name, ""))
    return Offer(True, True, _left(name, session) if name != "cpu" else "")


def _left(name: str, session: Session) -> str:
    placement = place(session)
    if placement is None:
        return "this ONNX Runtime, older than 1.24, does not tell what it leaves to the CPU"
    strays = placement.strays(name)
    return f"it leaves {', '.join(strays)} to the CPU" if strays else ""


def cores() -> Cores:
    """Return the processors that there are."""
    machine = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    return Cores(machine, allowed, _quota())


def _quota() -> float | None:
    try:
        granted, period = _QUOTA.read_text().split()
        return None if granted == "max" else int(granted) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def machine_facts() -> dict[str, Any]:
    """Return all of it, as JSON has it."""
    offered = offers()
    return {
        **versions(),
        "packages": installed(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "providers": {name: asdict(offer) for name, offer in offered.items()},
        "default": next((name for name in DEFAULT if offered[name].runs), None),
        "cores": asdict(cores()),
        "environment": {name: os.environ.get(name) for name in VARIABLES},
        "nvidia": asdict(find_driver()),
        "telemetry": telemetry(),
    }
