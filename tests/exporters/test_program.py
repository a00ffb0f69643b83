"""exporters.program: a .pt2 file is exported like its module, and nothing in it runs."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from camrt.bundle import open_bundle
from camrt.errors import ExportError
from exporters import export, layers
from exporters.source import read_source
from tests.exporters.helpers import images, split

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

from exporters.program import load_program  # noqa: E402

MODEL, WEIGHTS, CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
SAMPLE = "data/sample_inputs/model.pt"
Files = dict[str, bytes]


class Net(nn.Module):
    """What programs have in them: running statistics, a part without gradients, a size, a constant, a padding by name."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"stem-1": nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())})
        self.last = nn.Conv2d(6, 6, 3, padding="same")
        self.fc = nn.Linear(6, 4)
        self.offset = torch.arange(6.0)

    def forward(self, x):
        x = self.parts["stem-1"](x)
        with torch.no_grad():
            x = x + self.offset[:, None, None]
        x = self.last(nn.functional.interpolate(x, size=(9, 9), mode="bilinear")).relu()
        return self.fc(x.mean((2, 3)).view(x.shape[0], -1))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def save(
    module: nn.Module, path: Path, batch: int = 1, open_dims: tuple[int, ...] = (), size: tuple[int, int] = (16, 16)
) -> Path:
    dims = [{i: torch.export.Dim.DYNAMIC for i in open_dims}] if open_dims else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.zeros(batch, 3, *size),), dynamic_shapes=dims), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    """Return what is in a program, by name."""
    with zipfile.ZipFile(save(net(), tmp_path_factory.mktemp("pt2") / "net.pt2", 2, (0,))) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(files: Files, folder: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(folder / "net.pt2", "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(f"net/{name}", content)
    return folder / "net.pt2"


def changed(files: Files, name: str, change: Callable[[dict], object]) -> Files:
    value = json.loads(files[name])
    change(value)
    return {**files, name: json.dumps(value).encode()}


# --- what is exported -----------------------------------------------------------------------------------------------------
KINDS = {"any batch": (2, (0,)), "batch of one": (1, ()), "batch of three": (3, ()), "open size": (2, (0, 2, 3))}


@pytest.mark.parametrize(("batch", "open_dims"), KINDS.values(), ids=KINDS)
def test_a_program_becomes_the_bundle_of_its_module(batch, open_dims, tmp_path):
    path = save(net(), tmp_path / "net.pt2", batch, open_dims)
    manifest = export(path, tmp_path / "bundle", layer="parts.stem-1", overrides={"scale": 1 / 255})
    assert (manifest.size, manifest.layer.module) == ((16, 16), "parts.stem-1.2")
    assert (manifest.source.file, manifest.split.error < 1e-5) == ("net.pt2", True)
    bundle = open_bundle(tmp_path / "bundle")
    x = images(bundle)
    with torch.no_grad():
        np.testing.assert_allclose(split(bundle, x), net()(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-4)


def test_a_size_that_the_program_does_not_have_is_refused(files, tmp_path):
    with pytest.raises(ExportError, match=r"has height 16, not 32\. Leave out --size"):
        layers(str(write(files, tmp_path)), size=(32, 32))


def test_weights_beside_a_program_are_refused(files, tmp_path):
    with pytest.raises(ExportError, match="--weights goes with a PyTorch factory"):
        layers(write(files, tmp_path), weights="w.pt")


class Training(nn.Module):
    """A classifier that was left in training mode."""

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x).mean((2, 3))


@pytest.mark.parametrize("part", [nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Dropout2d(0.5)])
def test_a_program_in_training_mode_is_refused(part, tmp_path):
    with pytest.raises(ExportError, match=r"net\.pt2 was exported in training mode .* Call model\.eval\(\)"):
        read_source(save(Training(part).train(), tmp_path / "net.pt2"), None, None)


def test_a_program_that_takes_no_image_is_refused(tmp_path):
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),)), tmp_path / "net.pt2")
    with pytest.raises(ExportError, match=r"must have one input, an image \(N, C, H, W\); its inputs are: input"):
        read_source(tmp_path / "net.pt2", None, None)


# --- nothing runs ---------------------------------------------------------------------------------------------------------
class Evil:
    """A pickle that runs."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.write_text, (self.mark, "yes"))


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def nodes(program: dict) -> list[dict]:
    return program["graph_module"]["graph"]["nodes"]


def evil_table(files: Files, name: str, path_name: str, content: bytes) -> Files:
    entry = json.loads(files[WEIGHTS])["config"]["fc.bias"] | {"path_name": path_name, "use_pickle": True}
    made = changed(files, name, lambda table: table["config"].update({"offset": entry, "fc.bias": entry}))
    return {**made, f"{name.rpartition('/')[0]}/{path_name}": content}


def evil_name(program: dict, name: str) -> None:
    """Rename the first value of the program everywhere, so that the Python written from it holds the name."""
    first = nodes(program)[1]
    text = json.dumps(program).replace(json.dumps(first["name"]), json.dumps(name))
    program.update(json.loads(text))


def evil_graph(change: Callable[[dict, str], object]) -> Callable[[Files, Path], Files]:
    return lambda files, mark: changed(
        files, MODEL, lambda program: change(program, f"__import__('pathlib').Path({str(mark)!r}).touch()")
    )


def set_size(program: dict, code: str) -> None:
    values = program["graph_module"]["graph"]["tensor_values"]
    values["x"]["sizes"][0]["as_expr"]["expr_str"] = code


def set_operator(program: dict, target: str) -> None:
    nodes(program)[1]["target"] = target


def set_argument(program: dict, argument: dict) -> None:
    nodes(program)[1]["inputs"][0]["arg"] = argument


def set_structure(program: dict, kind: str, context: object) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["out_spec"] = json.dumps([1, {"type": kind, "context": json.dumps(context), "children_spec": []}])


ATTACKS = {
    "pickled example": lambda files, mark: {**files, SAMPLE: saved(((Evil(mark),), {}))},
    "bare pickle": lambda files, mark: {**files, SAMPLE: pickle.dumps(Evil(mark))},
    "pickled weight": lambda files, mark: evil_table(files, WEIGHTS, "weight_99", saved(Evil(mark))),
    "pickled constant": lambda files, mark: evil_table(files, CONSTANTS, "tensor_0", saved(Evil(mark))),
    "object": lambda files, mark: evil_table(files, CONSTANTS, "opaque_obj_0", pickle.dumps(Evil(mark))),
    "older weights": lambda files, mark: {**files, "data/weights/model.pt": saved({"fc.bias": Evil(mark)})},
    "older constants": lambda files, mark: {**files, "data/constants/model.pt": saved({"fc.bias": Evil(mark)})},
    "compiled library": lambda files, mark: {**files, "data/aotinductor/model/net.so": b"\x7fELF"},
    "expression of a size": evil_graph(set_size),
    "name of a value": evil_graph(lambda program, code: evil_name(program, f"x;{code};y")),
    "name behind a line's end": evil_graph(lambda program, code: evil_name(program, f"x = 1\n    {code}\n    y")),
    "function": evil_graph(lambda program, _: set_operator(program, "torch.os.system")),
    "file operator": evil_graph(lambda program, _: set_operator(program, "torch.ops.aten.from_file.default")),
    "operator of another library": evil_graph(lambda program, _: set_operator(program, "torch.ops.evil.run.default")),
    "function as argument": evil_graph(lambda program, _: set_argument(program, {"as_operator": "torch.os.system"})),
    "object as argument": evil_graph(lambda program, _: set_argument(program, {"as_custom_obj": {"name": "x", "class_fqn": "x"}})),
    "module of a defaultdict": evil_graph(
        lambda program, _: set_structure(
            program, "collections.defaultdict", {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
        )
    ),
    "module of an enum": evil_graph(
        lambda program, _: set_structure(program, "builtins.dict", [{"__enum__": True, "fqn": "antigravity:x", "name": "x"}])
    ),
    "quote in a weight's name": evil_graph(
        lambda program, code: program["graph_module"]["signature"]["input_specs"][0]["parameter"].update(parameter_name=f'a"+{code}+"')
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_program_that_would_run_something_is_refused(attack, files, tmp_path):
    path = write(attack(files, tmp_path / "hacked"), tmp_path)
    with pytest.raises(ExportError, match=r"net\.pt2: .*only tensors and operators of PyTorch itself are loaded") as caught:
        load_program(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("kind", ["pickled example", "pickled weight", "pickled constant", "object", "expression of a size"])
def test_the_attacks_are_real(kind, files, tmp_path):
    path = write(ATTACKS[kind](files, tmp_path / "hacked"), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.export.load(path)
        except Exception:
            pass
    assert (tmp_path / "hacked").exists()


def test_guards_and_notes_are_left_behind(files, tmp_path):
    def add(program: dict) -> None:
        program["guards_code"] = [f"__import__('pathlib').Path({str(tmp_path / 'hacked')!r}).touch()"]
        nodes(program)[1]["metadata"] |= {"stack_trace": "File \r import os", "custom": "{}", "from_node": "[]"}

    program = load_program(write(changed({**files, "extra/notes.txt": b"mine"}, MODEL, add), tmp_path))
    assert program.module()(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    assert not (tmp_path / "hacked").exists()


def test_a_compressed_entry_is_refused(files, tmp_path):
    with pytest.raises(ExportError, match="is compressed or twice in it"):
        load_program(write(files, tmp_path, zipfile.ZIP_DEFLATED))


def test_an_entry_that_is_there_twice_is_refused(files, tmp_path):
    path = write(files, tmp_path)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"net/{SAMPLE}", files[SAMPLE])
    with pytest.raises(ExportError, match="is compressed or twice in it"):
        load_program(path)


@pytest.mark.parametrize("missing", [MODEL, WEIGHTS, SAMPLE, "data/weights/weight_0", "archive_version"])
def test_a_program_that_lacks_a_part_is_refused(missing, files, tmp_path):
    with pytest.raises(ExportError, match=r"net\.pt2"):
        load_program(write({name: content for name, content in files.items() if name != missing}, tmp_path))


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\3\4"])
def test_a_file_that_is_no_program_is_refused(content, tmp_path):
    (tmp_path / "net.pt2").write_bytes(content)
    with pytest.raises(ExportError, match=r"net\.pt2 is no readable program of torch\.export\.save"):
        read_source(tmp_path / "net.pt2", None, None)
