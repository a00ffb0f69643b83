"""exporters.source: an ONNX file that can be read, or a sentence about why it cannot."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import onnx
import pytest

from camrt.errors import ExportError
from exporters.source import read_source
from tests import graphs


@pytest.fixture
def saved(tmp_path) -> Path:
    return Path(graphs.save(graphs.classifier(), tmp_path / "tiny.onnx"))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_read_with_its_provenance(saved, kind):
    source = read_source(kind(saved), None, None)
    assert source.model == graphs.classifier()
    assert (source.file, source.name) == ("tiny.onnx", str(saved))
    assert source.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert source.reference is None


def test_a_file_with_any_name_is_read(saved, tmp_path):
    moved = saved.rename(tmp_path / "ä model:v1")
    assert read_source(str(moved), None, None).file == "ä model:v1"


def test_a_file_that_is_named_like_a_factory_is_a_file(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved.rename(tmp_path / "model:v1")
    assert read_source("model:v1", None, None).file == "model:v1"


def test_external_data_is_read(tmp_path):
    path = tmp_path / "large.onnx"
    onnx.save(graphs.classifier(), path, save_as_external_data=True, location="large.data", size_threshold=0)
    weights = read_source(path, None, None).model.graph.initializer
    assert [tensor.raw_data for tensor in weights] == [tensor.raw_data for tensor in graphs.classifier().graph.initializer]


def test_external_data_that_is_missing_is_named(tmp_path):
    path = tmp_path / "large.onnx"
    onnx.save(graphs.classifier(), path, save_as_external_data=True, location="large.data", size_threshold=0)
    (tmp_path / "large.data").unlink()
    with pytest.raises(ExportError, match=r"large\.data"):
        read_source(path, None, None)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"nothing\.onnx: there is no such file"):
        read_source(tmp_path / "nothing.onnx", None, None)


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(ExportError, match=r"is a folder\. Name the \.onnx file in it"):
        read_source(tmp_path, None, None)


def test_a_path_through_a_file_cannot_be_read(saved):
    with pytest.raises(ExportError, match="cannot be read"):
        read_source(saved / "model.onnx", None, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"", r"has no operators \(0 bytes\)\. Download or export it again"),
        ("model.onnx", b"\0" * 100, r"is no readable ONNX model, or cut short \(100 bytes\)"),
        ("model.onnx", b"\xff\xd8\xff\xe0 a photo", "is a picture"),
        ("model.onnx", b"\n<!DOCTYPE html><html>404</html>", "is a page or markup, no model. Download the file itself"),
        ("model.onnx", b"version https://git-lfs.github.com/spec/v1\n", "Run: git lfs pull"),
        ("model.onnx", b"PK\3\4", "is an archive"),
        ("model.h5", b"\x89HDF\r\n", r"is an HDF5 file.*model\.export\(.model\.onnx., format=.onnx.\)"),
        ("model.tflite", b"\x1c\0\0\0TFL3\0\0", r"python -m tf2onnx\.convert --tflite .*model\.tflite --output model\.onnx"),
        ("frozen.pb", b"\n\1\2", "is a TensorFlow graph. Convert it: python -m tf2onnx"),
        ("net.mlmodel", b"\n\1\2", "is a Core ML model"),
        ("mynet.py", b"import torch", "Name what makes the module, from its folder: mynet:factory"),
        ("model.textproto", b"ir_version: 8", "is ONNX as text"),
    ],
)
def test_a_file_that_is_no_model_is_called_what_it_is_with_the_way_out(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ExportError, match=message):
        read_source(path, None, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("saved_model.pb", "--saved-model .*saved --output"),
        ("bundle.json", "is a bundle already"),
        ("x", "Name the .onnx file in it"),
    ],
)
def test_a_folder_is_called_what_it_is_with_the_way_out(tmp_path, name, message):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / name).touch()
    with pytest.raises(ExportError, match=message):
        read_source(tmp_path / "saved", None, None)


def test_a_model_cut_short_anywhere_is_refused(saved):
    data = saved.read_bytes()
    end = len(data) - len(b"B\4\n\0\20\21")  # the opsets stand last; without them alone the graph is whole
    for length in range(0, end, 97):
        saved.write_bytes(data[:length])
        with pytest.raises(ExportError, match=r"tiny\.onnx (is no readable|has no operators)"):
            read_source(saved, None, None)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".safetensors"])
def test_weights_alone_are_no_model(tmp_path, suffix):
    path = tmp_path / f"resnet{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(ExportError, match=r"holds weights, not a model\. Give its factory"):
        read_source(path, None, None)


def test_torchscript_is_no_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.ts", "w") as archive:
        for name in ("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py"):
            archive.writestr(name, b"not to be run")
    with pytest.raises(ExportError, match=r"net\.ts is TorchScript, which holds code and is not run\. Give the nn\.Module"):
        read_source(tmp_path / "net.ts", None, None)


def test_weights_beside_an_onnx_file_are_refused(saved):
    with pytest.raises(ExportError, match="--weights goes with a PyTorch factory"):
        read_source(saved, "weights.pt", None)
