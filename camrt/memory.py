"""The memory in use: this process's, and that of all GPUs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

PATIENCE = 20  # seconds for nvidia-smi


def own_memory(entry: str) -> float | None:
    """Return what /proc/self/status says of this process in MB; None where the system does not tell.

    Parameters
    ----------
    entry : str
        "VmRSS", what is resident; "VmHWM", its peak; "RssFile", what of it is mapped from files; …
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")) / 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def peak_resident() -> float:
    """Return this process's peak resident memory in MB.

    Not from getrusage on Linux: there a process inherits the peak of the one that started it.
    """
    told = own_memory("VmHWM")
    if told is None:
        told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return round(told, 1)


def device_memory() -> float | None:
    """Return the memory in use on all GPUs in MB; None where nvidia-smi does not tell."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.splitlines()
        return float(sum(int(line) for line in told)) if told else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
