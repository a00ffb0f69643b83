"""exporters.torchfile: what a file of PyTorch holds, told without opening it."""

from __future__ import annotations

import os
import zipfile

import pytest

from exporters.torchfile import PROGRAM, TORCHSCRIPT, WEIGHTS, kind_of

ARCHIVES = {
    "weights": (["net/data.pkl", "net/data/0"], WEIGHTS),
    "script": (["net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"], TORCHSCRIPT),
    "program": (["net/archive_format", "net/models/model.json"], PROGRAM),
    "older program": (["serialized_exported_program.json", "version"], PROGRAM),
    "photos": (["a.jpg"], None),
}


@pytest.mark.parametrize(("names", "kind"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_is_told_by_its_names_whatever_it_is_called(names, kind, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.bytes", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    assert kind_of(tmp_path / "model.bytes") == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.pt", WEIGHTS), ("a.pth", WEIGHTS), ("a.ckpt", WEIGHTS), ("a.safetensors", WEIGHTS), ("a.bin", WEIGHTS),
     ("a.pth.tar", WEIGHTS), ("a.pt2", PROGRAM), ("a.onnx", None), ("a", None)],
)  # fmt: skip
def test_another_file_is_told_by_its_suffix(name, kind, tmp_path):
    (tmp_path / name).write_bytes(b"anything")
    assert kind_of(tmp_path / name) == kind


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    assert kind_of(tmp_path / "pipe.pt") == WEIGHTS
