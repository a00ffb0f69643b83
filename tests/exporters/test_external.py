"""exporters.external: weights beside a file are read from regular files in its own folder, and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from camrt.errors import ExportError
from exporters.source import read_source
from tests import graphs
from tests.fuzz.externals import SECRET, furnish


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's folder: weights.data of 4096 bytes, and all that external data might point to."""
    (tmp_path / "in").mkdir()
    furnish(tmp_path / "in", bytes(4096))
    return tmp_path / "in"


def with_entries(folder: Path, **entries: str) -> Path:
    """Write a classifier whose first weight, of 864 bytes, lies where the entries say."""
    built = graphs.classifier(image=("N", 3, 16, 16))
    tensor = built.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(built.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("location", ["weights.data", "./weights.data", "link.data"])
def test_external_data_in_the_folder_is_read(location, folder):
    (weight, *_) = read_source(with_entries(folder, location=location, offset="64"), None, None).model.graph.initializer
    assert weight.raw_data == bytes(864)
    assert weight.data_location == TensorProto.DEFAULT
    assert not weight.external_data


@pytest.mark.parametrize(
    "location",
    [
        "../secret.data",
        "folder/../../secret.data",
        "outside.data",
        "linked/secret.data",
        "/etc/passwd",
        "/dev/zero",
        "zero.data",
        "",
        "..",
    ],
)
def test_external_data_cannot_leave_the_folder(location, folder):
    with pytest.raises(ExportError, match=r"weight 'w1' lies in '.*', outside of the model's folder"):
        read_source(with_entries(folder, location=location, length="64"), None, None)


def test_external_data_by_an_absolute_path_into_the_folder_is_refused(folder):
    with pytest.raises(ExportError, match="outside of the model's folder"):
        read_source(with_entries(folder, location=str(folder / "weights.data")), None, None)


def test_a_second_name_of_a_file_elsewhere_is_not_read(folder):
    with pytest.raises(ExportError, match=r"'hard\.data', a file with a second name"):
        read_source(with_entries(folder, location="hard.data"), None, None)
    assert SECRET in (folder / "hard.data").read_bytes()


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("fifo.data", "a pipe or a device"),
        ("folder", "Is a directory"),
        ("missing.data", "No such file"),
        ("\0", "null byte"),
        ("x" * 5000, "File name too long"),
    ],
    ids=["fifo", "folder", "missing", "null", "long"],
)
def test_external_data_in_what_is_no_file_is_refused(location, why, folder):
    with pytest.raises(ExportError, match=why) as caught:
        read_source(with_entries(folder, location=location), None, None)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("number", ["-1", "x", "", "1e3", "0x10", "9" * 5000, str(1 << 70), "٣", " 8"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_an_offset_or_length_that_is_no_number_is_refused(key, number, folder):
    with pytest.raises(ExportError, match=f"has the {key} '"):
        read_source(with_entries(folder, **{"location": "weights.data", key: number}), None, None)


@pytest.mark.parametrize("offset", [4096 - 863, 4096, 1 << 31, 10**17])
def test_external_data_behind_the_end_of_its_file_is_refused(offset, folder):
    with pytest.raises(ExportError, match="which has 4,096"):
        read_source(with_entries(folder, location="weights.data", offset=str(offset)), None, None)


@pytest.mark.parametrize("length", ["0", "863", "4096", str(3 << 30)])  # protobuf crashes on 3 GB
def test_external_data_of_another_length_than_the_weight_is_refused(length, folder):
    with pytest.raises(ExportError, match="where its type and shape say 864"):
        read_source(with_entries(folder, location="sparse.data", length=length), None, None)


def test_external_data_without_a_length_is_as_long_as_the_weight(folder):
    (weight, *_) = read_source(with_entries(folder, location="sparse.data"), None, None).model.graph.initializer
    assert len(weight.raw_data) == 864  # of a file of one terabyte


@pytest.mark.parametrize("dims", [[1 << 30], [1 << 62, 1 << 62], [-1], [1 << 31, 0, -5]])
def test_external_weights_beyond_every_memory_are_refused(dims, folder):
    path = with_entries(folder, location="sparse.data")
    built = onnx.load(path, load_external_data=False)
    built.graph.initializer[0].dims[:] = dims
    path.write_bytes(built.SerializeToString())
    with pytest.raises(ExportError, match="up to 2,147,483,647 bytes in all are allowed"):
        read_source(path, None, None)


def test_many_weights_in_the_same_bytes_are_counted_each(folder, monkeypatch):
    monkeypatch.setattr("exporters.external.MAX_BYTES", 1000)
    path = with_entries(folder, location="weights.data")
    built = onnx.load(path, load_external_data=False)
    built.graph.initializer.append(built.graph.initializer[0])
    path.write_bytes(built.SerializeToString())
    with pytest.raises(ExportError, match="up to 1,000 bytes in all"):
        read_source(path, None, None)
