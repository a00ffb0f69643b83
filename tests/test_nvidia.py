"""NVIDIA's driver: what is told where there is none, one that does not start, one without a GPU, and one with."""

from __future__ import annotations

import pytest

from camrt import nvidia
from camrt.nvidia import Driver, Gpu, find_driver


class Library:
    """Stands for libcuda.so.1 with GPUs of 24 GB and compute capability 8.9."""

    def __init__(self, gpus: int = 1, code: int = 0):
        self.gpus, self.code = gpus, code

    def cuInit(self, flags):
        return self.code

    def cuDeviceGetCount(self, count):
        count._obj.value = self.gpus
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 13010
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = f"GPU {device}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 24 << 30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0

    def cuGetErrorString(self, code, text):
        text._obj.value = b"system has unsupported display driver"
        return 0


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """Put a library, or None, in the place of the driver's, with the kernel's module or without."""

    def put(library, module: str = "") -> Driver:
        def load(name):
            if library is None:
                raise OSError(name)
            return library

        monkeypatch.setattr(nvidia.ctypes, "CDLL", load)
        monkeypatch.setattr(nvidia, "MODULE", tmp_path / "version")
        if module:
            (tmp_path / "version").write_text(module)
        return find_driver()

    return put


MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:10:23 UTC 2025\nGCC version: 13"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.3.0  Release Build\n"


def test_a_gpu_is_described(driver):
    assert driver(Library(), MODULE) == Driver("580.65.06", "13.1", (Gpu("GPU 0", 24 << 30, "8.9"),), "")
    assert len(driver(Library(gpus=4), OPEN).gpus) == 4
    assert driver(Library(), OPEN).version == "540.3.0"


def test_a_machine_without_a_driver_says_so(driver):
    assert driver(None) == Driver("", "", (), "libcuda.so.1, which comes with NVIDIA's driver, is not found")


def test_a_driver_that_is_not_passed_into_the_container_says_so(driver):
    assert driver(None, MODULE).trouble.startswith("the kernel's module 580.65.06 is loaded, but libcuda.so.1")


@pytest.mark.parametrize("library", [Library(gpus=0), Library(code=100)])
def test_a_driver_that_shows_no_gpu_says_so(driver, library):
    found = driver(library)
    assert (found.gpus, found.cuda) == ((), "13.1")
    assert "shows no GPU (CUDA_VISIBLE_DEVICES" in found.trouble


def test_a_driver_that_does_not_start_says_why(driver):
    found = driver(Library(code=803))
    assert found.trouble == "NVIDIA's driver does not start: system has unsupported display driver (CUDA error 803)"


def test_this_machine_gives_an_answer():
    found = find_driver()
    assert bool(found.gpus) != bool(found.trouble)
