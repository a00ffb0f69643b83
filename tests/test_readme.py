"""Every command and every line of Python in README runs."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
import textwrap

import onnx
import pytest
from click.testing import CliRunner

from camrt.cli import camrt
from exporters.vjps import RULES
from tests import graphs
from tests.light import light

from .conftest import ROOT, SAMPLES

CONVERTED = ROOT / "tests" / "exporters" / "converted"
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what README's examples name: models of several makers, labels.txt, photo.png, mynet.py and its weights."""
    import torch

    folder = tmp_path_factory.mktemp("readme")
    graphs.save(graphs.classifier(image=("N", 3, 64, 64)), folder / "model.onnx")
    onnx.save(light("squeezenet"), folder / "squeezenet1.0-9.onnx")
    shutil.copy(CONVERTED / "keras_residual.onnx", folder / "keras.onnx")
    (folder / "labels.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    shutil.copy(SAMPLES / "heart.png", folder / "photo.png")
    (folder / "photos").mkdir()
    for name in ("heart.png", "star.png"):
        shutil.copy(SAMPLES / name, folder / "photos" / name)
    (folder / "labels.csv").write_text("file,class\nheart.png,cat\nstar.png,3\n")
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1\nheart.png,100,80,300,290\n")
    (folder / "mynet.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
                    self.classifier = nn.Linear(16, 4)

                def forward(self, x):
                    return self.classifier(self.features(x).mean(dim=(2, 3)))


            def factory():
                torch.manual_seed(0)
                return Net().eval()
            """
        )
    )
    with contextlib.chdir(folder):
        sys.path.insert(0, str(folder))
        import mynet

        module = mynet.factory()
        torch.save(module.state_dict(), folder / "weights.pt")
        trained = {f"module.{name}": weight for name, weight in module.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": trained}, folder / "checkpoint.pth")
        program = torch.export.export(module, (torch.zeros(1, 3, 64, 64),))
        torch.export.save(program, folder / "model.pt2")
        yield folder
        sys.path.remove(str(folder))
        del sys.modules["mynet"]


def test_every_command_runs_in_the_order_of_the_page(workplace):
    commands = [line.split("#")[0] for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 10
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "camrt"
        result = CliRunner().invoke(camrt, arguments)
        assert result.exit_code == 0, f"{command}\n{result.output}"


def test_every_piece_of_python_runs(workplace, capsys):
    for block in blocks("python"):
        exec(block, {})
    assert "(2, 384, 384)" in capsys.readouterr().out
    assert (workplace / "out" / "photo.heart.png").exists()


def test_the_operators_with_a_gradient_are_all_named():
    told = re.search(r"There are rules for ([^.]*)\.", TEXT.replace("\n", " ")).group(1)
    assert re.findall(r"\w+", told) == sorted(RULES)


def test_the_files_that_the_page_shows_and_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_make_knows_the_commands_that_the_page_names():
    makefile = (ROOT / "Makefile").read_text()
    for goal in set(re.findall(r"`?make (\w[\w-]*)", TEXT)):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal
