"""Tell what a file of PyTorch holds by the names in its archive, without PyTorch and without reading what they hold."""

from __future__ import annotations

import zipfile
from pathlib import Path

from camrt.files import open_regular

PROGRAM, TORCHSCRIPT, WEIGHTS = "program", "TorchScript", "weights"
SUFFIXES = {".pt2": PROGRAM} | dict.fromkeys((".pt", ".pth", ".safetensors", ".ckpt", ".bin", ".tar"), WEIGHTS)


def kind_of(path: Path) -> str | None:
    """Return what a file holds: a program of torch.export.save, TorchScript, or weights; None where it is none of them."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):  # one of before PyTorch 1.6, .safetensors, or damaged
        return SUFFIXES.get(path.suffix)
    inside = {name.partition("/")[2] for name in names}
    if "serialized_exported_program.json" in names or "archive_format" in inside:
        return PROGRAM
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return TORCHSCRIPT
    return WEIGHTS if "data.pkl" in inside else SUFFIXES.get(path.suffix)
