"""Where the time of a command goes, from the start of its process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

START = "start Python, import"


class Clock:
    """Adds wall-clock time to named laps; the first is what passed since the process began."""

    def __init__(self) -> None:
        self.seconds = {START: _since_the_process_began()}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def table(self, stages: Mapping[str, float], of: str) -> str:
        """Return the laps in milliseconds, those of the lap `of` with its stages, and their sum."""
        rows = []
        for name, seconds in self.seconds.items():
            rows.append((name, seconds * 1e3))
            if name == of:
                rows += [(f"  {stage}", ms) for stage, ms in stages.items()]
        rows.append(("together", sum(self.seconds.values()) * 1e3))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {ms:8.1f} ms" for name, ms in rows)


def _since_the_process_began() -> float:
    """Return seconds, to a hundredth; 0 where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # field 22, starttime
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
