"""NVIDIA's driver and the GPUs that it shows, asked through its own library; nothing of CUDA has to be installed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "libcuda.so.1"  # comes with the driver, on a Jetson too
MODULE = Path("/proc/driver/nvidia/version")
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_CAPABILITY = (75, 76)  # attributes of a device: the compute capability's two numbers


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver shows."""

    name: str
    memory: int  # bytes
    capability: str  # "9.0"


@dataclass(frozen=True)
class Driver:
    """What was found of NVIDIA's driver.

    Attributes
    ----------
    version : str
        Of the kernel's module; empty where there is none.
    cuda : str
        The newest CUDA that the driver serves, "13.0"; empty where it does not start.
    gpus : tuple of Gpu
    trouble : str
        Why there is no GPU; empty where there is one.
    """

    version: str
    cuda: str
    gpus: tuple[Gpu, ...]
    trouble: str


def find_driver() -> Driver:
    """Return what this machine shows of NVIDIA's driver.  A process that starts it must not fork and use CUDA in the child."""
    version = _module_version()
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        loaded = f"the kernel's module {version} is loaded, but " if version else ""
        return Driver(version, "", (), f"{loaded}{LIBRARY}, which comes with NVIDIA's driver, is not found")
    code = library.cuInit(0)
    if code not in (0, _NO_DEVICE):
        return Driver(version, "", (), f"NVIDIA's driver does not start: {_error(library, code)}")
    gpus = tuple(_gpu(library, i) for i in range(_number(library.cuDeviceGetCount))) if code == 0 else ()
    number = _number(library.cuDriverGetVersion)  # 13000 is 13.0
    trouble = "" if gpus else "NVIDIA's driver shows no GPU (CUDA_VISIBLE_DEVICES, a container without --gpus?)"
    return Driver(version, f"{number // 1000}.{number % 1000 // 10}", gpus, trouble)


def _module_version() -> str:
    """Return "580.65.06" of "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …"."""
    try:
        words = MODULE.read_text().splitlines()[0].split()
    except (OSError, UnicodeError, IndexError):
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def _number(function: Any, *arguments: int) -> int:
    value = ctypes.c_int()
    return value.value if function(ctypes.byref(value), *arguments) == 0 else 0


def _gpu(library: Any, index: int) -> Gpu:
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGetName(name, len(name), index)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), index)
    major, minor = (_number(library.cuDeviceGetAttribute, attribute, index) for attribute in _CAPABILITY)
    return Gpu(name.value.decode(errors="replace"), memory.value, f"{major}.{minor}")


def _error(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return f"{(text.value or b'unknown').decode(errors='replace')} (CUDA error {code})"
