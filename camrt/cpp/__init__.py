"""camrt in C++ hosts: the header camrt.hpp, its CMake package, and `host`, what the header asks of Python."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def cmake_dir() -> Path:
    """Return the folder of camrtConfig.cmake: what CMake takes as camrt_DIR."""
    return HERE / "cmake"


def include_dir() -> Path:
    """Return the folder of camrt.hpp."""
    return HERE
