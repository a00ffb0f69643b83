"""The model repository, held against what Triton's ONNX Runtime backend asks of one; Triton itself does not run here."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnxruntime.quantization import quantize_dynamic

import exporters.triton
from camrt.bundle import open_bundle
from camrt.compiled import read_entries
from camrt.errors import ExportError, ParameterError
from camrt.photo import load_photo
from exporters import export
from exporters.triton import BATCH, CONFIG, LABELS, MODEL, VERSION, write_model
from tests import graphs
from tests.conftest import SAMPLES

QUICK = {"method": "grad-cam"}
FILES = {CONFIG, LABELS, VERSION, f"{VERSION}/{MODEL}"}


@pytest.fixture(scope="module")
def protobuf() -> ModuleType:
    """Triton's own schema of a configuration, from its client, without the gRPC that its package wants."""
    found = importlib.util.find_spec("tritonclient")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py" if found else Path("missing")
    if not path.is_file():
        pytest.skip("tritonclient is not installed")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repository(tiny_bundle, tmp_path_factory) -> Path:
    """Models of the tiny network: of bytes, of floats, by another method, and with requests put together."""
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_model(tiny_bundle, folder, name="bytes", clusters=3)
    write_model(tiny_bundle, folder, name="floats", pixels="float", kind="cpu", **QUICK)
    write_model(tiny_bundle, folder, name="together", clusters=3, dynamic_batching=True, max_batch_size=4, kind="gpu")
    return folder


@pytest.fixture(scope="module")
def one_at_a_time(tmp_path_factory) -> Path:
    """A bundle whose network takes its scales from the whole batch."""
    folder = tmp_path_factory.mktemp("dynamic")
    quantize_dynamic(graphs.classifier(), folder / "model.onnx", op_types_to_quantize=["Conv", "MatMul", "Gemm"])
    export(folder / "model.onnx", folder / "bundle", overrides={"scale": 1 / 255})
    return folder / "bundle"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what Triton does, as far as a model can be wrong -----------------------------------------------------------------------
NUMPY = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64, "TYPE_UINT8": np.uint8}
RUNTIME = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)", "TYPE_UINT8": "tensor(uint8)"}


class Triton:
    """Loads a model as the ONNX Runtime backend does, and puts requests together as the dynamic batcher does."""

    def __init__(self, folder: Path, schema: ModuleType):
        self.config = text_format.Parse((folder / CONFIG).read_text(encoding="utf-8"), schema.ModelConfig())
        self.kinds = {value: key for key, value in schema.DataType.items()}
        assert self.config.name == folder.name
        assert self.config.backend == "onnxruntime"
        path = folder / VERSION / self.config.default_model_filename
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert not self.session.get_overridable_initializers()
        assert {i.name for i in self.config.input} == {i.name for i in self.session.get_inputs()}
        assert {o.name for o in self.config.output} == {o.name for o in self.session.get_outputs()}
        for told, real, exact in (
            (self.config.input, self.session.get_inputs(), False),
            (self.config.output, self.session.get_outputs(), True),
        ):
            tensors = {tensor.name: tensor for tensor in real}
            for one in told:
                self._compare(one, tensors[one.name], exact)

    def _compare(self, told: Any, real: Any, exact: bool) -> None:
        shape = [size if isinstance(size, int) else -1 for size in real.shape]
        if self.config.max_batch_size > 0:
            assert shape[0] == -1
        full = [*([-1] if self.config.max_batch_size > 0 else []), *told.dims]
        assert len(full) == len(shape)
        assert all(a == b for a, b in zip(full, shape, strict=True) if exact or b != -1), (told.name, full, shape)
        assert RUNTIME[self.kinds[told.data_type]] == real.type

    def infer(self, *requests: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        batches = []
        for request in requests:
            assert request.keys() == {i.name for i in self.config.input}
            for one in self.config.input:
                value = request[one.name]
                shape = value.shape[1:] if self.config.max_batch_size else value.shape
                assert value.dtype == NUMPY[self.kinds[one.data_type]]
                assert len(shape) == len(one.dims)
                assert all(a in (-1, b) for a, b in zip(one.dims, shape, strict=True))
            (batch,) = {len(value) for value in request.values()} if self.config.max_batch_size else {1}
            batches.append(batch)
        if self.config.max_batch_size == 0:
            assert len(requests) == 1
        else:
            assert sum(batches) <= self.config.max_batch_size
        fed = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
        names = [o.name for o in self.config.output]
        found = dict(zip(names, self.session.run(names, fed), strict=True))
        if self.config.max_batch_size == 0:
            return [found]
        ends = np.cumsum(batches)
        parts = {name: np.split(value, ends[:-1]) for name, value in found.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(len(requests))]


def request(seed: int, *targets: int) -> dict[str, np.ndarray]:
    """Return a request of one smooth image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (1, 4, 4, 3))
    return {"image": np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8), "target": np.array([targets])}


# --- the configuration ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["bytes", "floats", "together"])
def test_the_backend_loads_the_model_with_the_configuration(repository, protobuf, name):
    found = Triton(repository / name, protobuf).config
    assert (found.name, found.platform, found.backend) == (name, "onnxruntime_onnx", "onnxruntime")
    assert {path.relative_to(repository / name).as_posix() for path in (repository / name).rglob("*")} == FILES


def test_batches_instances_and_scheduling_are_as_asked(repository, protobuf):
    found = {name: Triton(repository / name, protobuf).config for name in ("bytes", "floats", "together")}
    groups = {name: [(g.kind, g.count) for g in config.instance_group] for name, config in found.items()}
    kind = protobuf.ModelInstanceGroup
    assert groups == {"bytes": [(kind.KIND_AUTO, 1)], "floats": [(kind.KIND_CPU, 1)], "together": [(kind.KIND_GPU, 1)]}
    assert {name: config.max_batch_size for name, config in found.items()} == {"bytes": BATCH, "floats": BATCH, "together": 4}
    assert [name for name, config in found.items() if config.HasField("dynamic_batching")] == ["together"]


def test_the_inputs_and_outputs_are_written_out(repository, protobuf):
    config = Triton(repository / "bytes", protobuf).config
    tensors = {t.name: (protobuf.DataType.Name(t.data_type), list(t.dims)) for t in (*config.input, *config.output)}
    assert tensors == {
        "image": ("TYPE_UINT8", [32, 32, 3]), "target": ("TYPE_INT64", [-1]), "logits": ("TYPE_FP32", [5]),
        "targets": ("TYPE_INT64", [-1]), "probabilities": ("TYPE_FP32", [-1]), "heatmap": ("TYPE_FP32", [-1, 32, 32]),
        "outcomes": ("TYPE_INT64", [-1]), "scores": ("TYPE_FP32", [-1, -1]),
    }  # fmt: skip
    floats = Triton(repository / "floats", protobuf).config
    assert [list(i.dims) for i in floats.input] == [[3, 32, 32], [-1]]
    assert "scores" not in {o.name for o in floats.output}


def test_labels_are_those_of_the_logits_alone(repository, protobuf, tiny_bundle):
    config = Triton(repository / "bytes", protobuf).config
    assert [(o.name, o.label_filename) for o in config.output if o.label_filename] == [("logits", LABELS)]
    labels = (repository / "bytes" / LABELS).read_text(encoding="utf-8").splitlines()
    assert labels == list(open_bundle(tiny_bundle).manifest.labels)


def test_a_bundle_without_labels_has_no_file_of_them(tmp_path, protobuf):
    source = graphs.save(graphs.classifier(), tmp_path / "model.onnx")
    export(source, tmp_path / "bundle", overrides={"scale": 1 / 255})
    write_model(tmp_path / "bundle", tmp_path / "repository", **QUICK)
    assert set(contents(tmp_path / "repository" / "bundle")) == {CONFIG, f"{VERSION}/{MODEL}"}
    assert not any(o.label_filename for o in Triton(tmp_path / "repository" / "bundle", protobuf).config.output)


def test_labels_stand_one_a_line_whatever_is_in_them(tmp_path, protobuf):
    source = graphs.save(graphs.classifier(2), tmp_path / "model.onnx")
    export(source, tmp_path / "bundle", labels=['größe\n"a"', "猫\t, b"], overrides={"scale": 1 / 255})
    write_model(tmp_path / "bundle", tmp_path / "repository", **QUICK)
    assert (tmp_path / "repository" / "bundle" / LABELS).read_text(encoding="utf-8") == 'größe "a"\n猫 , b\n'
    Triton(tmp_path / "repository" / "bundle", protobuf)


def test_what_the_file_says_of_itself_is_kept_and_told_by_the_configuration(repository, protobuf, tiny_bundle):
    config = Triton(repository / "bytes", protobuf).config
    told = {key: value.string_value for key, value in config.parameters.items()}
    entries = read_entries(repository / "bytes" / VERSION / MODEL)
    assert entries["bundle_sha256"] == told["camrt.bundle_sha256"] == open_bundle(tiny_bundle).sha256
    assert (
        json.loads(told["camrt.preprocess"]) == entries["preprocess"] == open_bundle(tiny_bundle).manifest.preprocess.to_json()
    )
    assert json.loads(told["camrt.parameters"])["clusters"] == 3
    assert {key.removeprefix("camrt.") for key in told if key.startswith("camrt.")} == entries.keys() - {"labels"}
    assert (told["cudnn_conv_algo_search"], told["arena_extend_strategy"]) == ("1", "1")


@pytest.mark.parametrize("text", ["", 'a "b" \\ c', "größe 猫", "a\nb\tc\x00\x7f", "{} # ' \\n", "\\101"])
def test_strings_come_back_as_they_were(protobuf, text):
    parsed = text_format.Parse(f"name: {exporters.triton._quoted(text)}", protobuf.ModelConfig())
    assert parsed.name == text


# --- requests ---------------------------------------------------------------------------------------------------------------
def test_requests_put_together_are_answered_as_alone(repository, protobuf):
    server = Triton(repository / "together", protobuf)
    requests = [request(1, 0, 2), request(2, 4, -1), request(3, -1, -2)]
    together = server.infer(*requests)
    for one, answer in zip(requests, together, strict=True):
        (alone,) = server.infer(one)
        assert answer.keys() == alone.keys()
        for name, value in answer.items():
            np.testing.assert_allclose(value, alone[name], atol=1e-5, err_msg=name)
    assert [answer["targets"].tolist()[0][0] for answer in together[:2]] == [0, 4]


def test_a_request_of_several_images_has_a_row_of_targets_for_each(repository, protobuf):
    server = Triton(repository / "bytes", protobuf)
    one, other = request(1, 3), request(2, 1)
    (answer,) = server.infer({name: np.concatenate([one[name], other[name]]) for name in one})
    assert answer["targets"].tolist() == [[3], [1]]
    assert answer["heatmap"].shape == (2, 1, 32, 32)


def test_a_target_that_is_no_class_fails_what_is_put_together_with_it(repository, protobuf):
    with pytest.raises(Exception, match=r"idx=7|out of|bounds|indices"):
        Triton(repository / "together", protobuf).infer(request(1, 0), request(2, 7))


def test_the_answers_are_those_of_the_python_runtime(tmp_path, protobuf, shapes):
    write_model("shapes", tmp_path, photos=[SAMPLES / "star.png"])
    square = np.ascontiguousarray(load_photo(SAMPLES / "star.png").pixels[:96, :96])
    explanation = shapes.explain(square, targets=["star", "ring"])
    indices = [target.index for target in explanation.targets]
    (answer,) = Triton(tmp_path / "shapes", protobuf).infer({"image": square[None], "target": np.array([indices])})
    np.testing.assert_allclose(answer["heatmap"][0], explanation.heatmap, atol=1e-4)
    np.testing.assert_allclose(answer["probabilities"][0], [t.probability for t in explanation.targets], atol=1e-4)


# --- one at a time ------------------------------------------------------------------------------------------------------------
def test_a_network_that_takes_one_image_at_a_time_has_no_batches(one_at_a_time, tmp_path, protobuf):
    write_model(one_at_a_time, tmp_path, name="alone", clusters=3)
    server = Triton(tmp_path / "alone", protobuf)
    assert server.config.max_batch_size == 0
    assert [list(i.dims) for i in server.config.input] == [[1, 32, 32, 3], [-1, -1]]
    (answer,) = server.infer(request(1, 0, 2))
    assert answer["heatmap"].shape == (1, 2, 32, 32)


@pytest.mark.parametrize("options", [{"max_batch_size": 2}, {"dynamic_batching": True}], ids=str)
def test_batches_are_refused_where_images_go_one_at_a_time(one_at_a_time, tmp_path, options):
    with pytest.raises(ParameterError, match="takes one image at a time .*scale from the whole batch"):
        write_model(one_at_a_time, tmp_path / "repository", name="alone", **options)
    assert not list(tmp_path.iterdir())


# --- what is refused ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-m", "a/b", "../a", "a b", "größe", "a\n", "a?b", "%2e", "x" * 129]
)
def test_a_name_that_is_no_folder_or_no_part_of_a_url_is_refused(tiny_bundle, tmp_path, name):
    with pytest.raises(ParameterError, match="cannot be the name of a model in Triton.*Give one with --name, for instance"):
        write_model(tiny_bundle, tmp_path / "repository", name=name)
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_bundle_gives_is_checked_too_and_another_one_proposed(tmp_path):
    source = graphs.save(graphs.classifier(), tmp_path / "model.onnx")
    export(source, tmp_path / "bundle", name="my net (v2)", overrides={"scale": 1 / 255})
    with pytest.raises(ParameterError, match=r"'my net \(v2\)' cannot.* for instance my_net_v2_\."):
        write_model(tmp_path / "bundle", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(("options", "message"), [
    ({"kind": "cuda"}, "kind must be auto, gpu or cpu, got 'cuda'"),
    ({"max_batch_size": 0}, "max_batch_size must be a whole number, at least 1, got 0"),
    ({"max_batch_size": True}, "max_batch_size must be"),
    ({"max_batch_size": 2.0}, "max_batch_size must be"),
    ({"method": "rise"}, "rise cannot be compiled into one graph"),
    ({"pixels": "int8"}, "pixels must be float or uint8"),
])  # fmt: skip
def test_what_cannot_be_leaves_nothing(tiny_bundle, tmp_path, options, message):
    with pytest.raises(ParameterError, match=message):
        write_model(tiny_bundle, tmp_path / "repository", **options)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_there_is_kept(tiny_bundle, tmp_path):
    write_model(tiny_bundle, tmp_path, name="m", **QUICK)
    before = contents(tmp_path)
    with pytest.raises(ExportError, match="m exists. Choose another --name, or replace it with --force"):
        write_model(tiny_bundle, tmp_path, name="m", clusters=2)
    assert contents(tmp_path) == before


def test_force_replaces_the_whole_model_and_leaves_the_others(tiny_bundle, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / CONFIG).write_text("theirs")
    write_model(tiny_bundle, tmp_path, name="m", **QUICK)
    write_model(tiny_bundle, tmp_path, name="m", force=True, clusters=2)
    assert read_entries(tmp_path / "m" / VERSION / MODEL)["method"] == "cluster-cam"
    assert set(contents(tmp_path)) == {"other/config.pbtxt", *(f"m/{name}" for name in FILES - {VERSION})}
    assert {path.name for path in tmp_path.iterdir()} == {"other", "m"}


@pytest.mark.parametrize("theirs", ["2/model.onnx", "1/model.plan", "configs/a.pbtxt", "notes.txt"])
def test_what_camrt_has_not_written_is_not_replaced_even_by_force(tiny_bundle, tmp_path, theirs):
    (tmp_path / "m" / theirs).parent.mkdir(parents=True)
    (tmp_path / "m" / theirs).write_text("theirs")
    with pytest.raises(ExportError, match="is not replaced, as it holds"):
        write_model(tiny_bundle, tmp_path, name="m", force=True)
    assert contents(tmp_path) == {f"m/{theirs}": b"theirs"}


def test_a_folder_that_is_empty_is_taken(tiny_bundle, tmp_path):
    (tmp_path / "m").mkdir()
    write_model(tiny_bundle, tmp_path, name="m", **QUICK)
    assert (tmp_path / "m" / CONFIG).is_file()


def test_a_bundle_and_a_model_are_no_repositories(tiny_bundle, repository):
    for place, what in ((tiny_bundle, "a bundle"), (repository / "bytes", "a model")):
        before = contents(place)
        with pytest.raises(ExportError, match=f"is {what}, and a repository holds folders of models"):
            write_model(tiny_bundle, place, name="m", force=True)
        assert contents(place) == before


def test_a_file_or_a_link_is_no_folder(tiny_bundle, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place, name in ((tmp_path, "file"), (tmp_path, "link"), (tmp_path / "file", "m"), (tmp_path / "file" / "deeper", "m")):
        with pytest.raises(ExportError, match="is no folder"):
            write_model(tiny_bundle, place, name=name, force=True)
    assert (tmp_path / "file").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


def test_a_model_that_appears_meanwhile_is_kept(tiny_bundle, tmp_path):
    def progress(step: str) -> None:
        if step == "write":
            (tmp_path / "m").mkdir()
            (tmp_path / "m" / CONFIG).write_text("somebody else's")

    with pytest.raises(ExportError, match="exists"):
        write_model(tiny_bundle, tmp_path, name="m", progress=progress, **QUICK)
    assert contents(tmp_path) == {f"m/{CONFIG}": b"somebody else's"}


# --- whole or not at all --------------------------------------------------------------------------------------------------------
def test_a_disk_that_is_full_leaves_nothing(tiny_bundle, tmp_path, monkeypatch):
    real = exporters.triton.write_together

    def full(folder, files):
        if MODEL in files:
            raise OSError(28, "No space left on device")
        return real(folder, files)

    monkeypatch.setattr(exporters.triton, "write_together", full)
    with pytest.raises(ExportError, match="No space left on device.*nothing was changed"):
        write_model(tiny_bundle, tmp_path / "a" / "repository", **QUICK)
    assert not list(tmp_path.iterdir())


def test_a_rename_that_fails_leaves_the_model_that_was_there(tiny_bundle, tmp_path, monkeypatch):
    write_model(tiny_bundle, tmp_path / "repository", name="m", **QUICK)
    before = contents(tmp_path)
    real = Path.rename

    def rename(self, target):
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ExportError, match="Input/output error.*nothing was changed"):
        write_model(tiny_bundle, tmp_path / "repository", name="m", force=True, clusters=2)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_server_that_looks_meanwhile_sees_no_half_model(tiny_bundle, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    seen = []
    real = exporters.triton.write_together
    monkeypatch.setattr(exporters.triton, "write_together", lambda *a: (seen.append(os.listdir(repository)), real(*a)))
    write_model(tiny_bundle, repository, **QUICK)
    assert seen == [[]] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_it_is_built_beside_the_repository_or_inside_one_that_is_a_file_system_of_its_own(tmp_path):
    place = exporters.triton._workplace
    assert place(tmp_path) == tmp_path.parent
    assert place(tmp_path / "a" / "b") == tmp_path
    assert place(Path("/proc")) == Path("/proc")


def test_a_model_that_is_built_inside_the_repository_leaves_nothing_beside(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(exporters.triton, "_workplace", lambda repository: repository)
    write_model(tiny_bundle, tmp_path, name="m", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_folders_can_be_read_by_the_server(repository):
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (repository / "bytes").rglob("*"))


def test_the_file_is_a_checked_model(repository):
    onnx.checker.check_model(onnx.load(repository / "bytes" / VERSION / MODEL), full_check=True)
