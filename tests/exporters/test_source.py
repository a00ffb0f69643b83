"""exporters.source: an ONNX file that can be read, or a sentence about why it cannot."""

from __future__ import annotations

import hashlib
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
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff\xd8\xff\xe0 a photo",
        b"<html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\3\4",
    ],
    ids=["empty", "zeros", "jpeg", "html", "lfs", "zip"],
)
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.onnx is no"):
        read_source(path, None, None)


def test_a_model_cut_short_anywhere_is_refused(saved):
    data = saved.read_bytes()
    end = len(data) - len(b"B\4\n\0\20\21")  # the opsets stand last; without them alone the graph is whole
    for length in range(0, end, 97):
        saved.write_bytes(data[:length])
        with pytest.raises(ExportError, match=r"tiny\.onnx is no"):
            read_source(saved, None, None)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_alone_are_no_model(tmp_path, suffix):
    path = tmp_path / f"resnet{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(ExportError, match=r"holds weights, not a model\. Give its factory"):
        read_source(path, None, None)


def test_weights_beside_an_onnx_file_are_refused(saved):
    with pytest.raises(ExportError, match="--weights goes with a PyTorch factory"):
        read_source(saved, "weights.pt", None)
