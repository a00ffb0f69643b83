"""camrt layers and camrt export: making bundles; the one place in camrt that imports the exporters, when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from camrt.cli.inspect import bundle_facts, manifest_json
from camrt.cli.options import json_option
from camrt.manifest import KINDS, Manifest
from camrt.preprocess import COLORS, INTERPOLATIONS

MAX_SHOWN = 72  # characters of a tensor's name


def import_exporters() -> Any:
    """Import exporters, which need packages that the runtime does not."""
    try:
        import exporters
    except ImportError as error:
        raise click.ClickException(f"This command needs the exporters' packages ({error}): pip install onnx") from None
    return exporters


def _read_size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdecimal() and len(p) < 9 and int(p) > 0 for p in parts):
        raise click.BadParameter(f"write N, or HxW (height x width), got {text!r}.")
    return int(parts[0]), int(parts[-1])


def _read_numbers(_: click.Context, parameter: click.Parameter, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"write numbers with commas between, for instance 0.485,0.456,0.406; got {text!r}.") from None


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--output", metavar="NAME", help="The model's output to explain, where it has several."),
        click.option("--size", callback=_read_size, metavar="N|HxW", help="Height and width of the input, for PyTorch (224 unless told) and where the model leaves them open."),
        click.option("--weights", metavar="FILE", help="Checkpoint (.pt, .pth, .safetensors) for package.module:factory."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("source")
@_source_options
@json_option
def layers(source: str, weights: str | None, size: tuple[int, int] | None, output: str | None, as_json: bool) -> None:
    """List where SOURCE can be cut, best first.

    SOURCE is an .onnx file, a .pt2 file of torch.export.save, or package.module:factory for PyTorch.

    Example:  camrt layers model.onnx
    """
    found = import_exporters().layers(source, weights=weights, size=size, output=output)
    if as_json:
        click.echo(json.dumps([vars(layer) for layer in found], indent=2))
        return
    click.echo(f"{found[0].tensor} is {found[0].reason}.\n")
    rows = [("", "tensor", "operator", "C x h x w", "stride", "module")]
    for layer in found:
        stride = (
            f"{layer.stride[0]:g}" if layer.stride[0] == layer.stride[1] else f"{layer.stride[0]:.3g} x {layer.stride[1]:.3g}"
        )
        shape = " x ".join(map(str, layer.shape))
        rows.append(
            ("→" if layer is found[0] else "", _shortened(layer.tensor), layer.operator, shape, stride, layer.module or "")
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())


def _shortened(name: str) -> str:
    """Return a name without its middle where a converter made it longer than a line; --json has it whole."""
    return name if len(name) <= MAX_SHOWN else f"{name[: MAX_SHOWN // 2 - 1]}…{name[-MAX_SHOWN // 2 :]}"


@click.command()
@click.argument("source")
@click.option(
    "-o", "--bundle", "target", required=True, type=click.Path(path_type=Path), metavar="BUNDLE", help="Folder to write."
)
@click.option(
    "--layer",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Tensor, node or PyTorch module to cut at; see camrt layers.",
)
@click.option("--labels", metavar="FILE", help=".txt with one label a line, or .json list or dict.")
@click.option("--preprocess", metavar="FILE", help="JSON file that describes the preprocessing.")
@click.option("--preset", type=click.Choice(["imagenet"]), help="Preprocessing to start from.")
@click.option("--scale", type=float, help="Factor on pixels 0…255.")
@click.option(
    "--mean", callback=_read_numbers, metavar="A,B,C", help="Subtracted after scaling, in the network's channel order."
)
@click.option("--std", callback=_read_numbers, metavar="A,B,C", help="Divided by after the mean.")
@click.option("--resize", metavar="N|WxH|letterbox", help="Shorter side, exact size, or fit inside.")
@click.option("--crop", type=int, metavar="N", help="Centre crop; must be the network's input.")
@click.option("--color", type=click.Choice(COLORS), help="Channel order of the network.")
@click.option("--interpolation", type=click.Choice(INTERPOLATIONS), help="How photos are resized.")
@click.option(
    "--kind",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *KINDS]),
    help="What the output is.",
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "fp16"]),
    help="fp16 computes a float32 model in float16 and measures what that changes; fp32 leaves a model as it is.",
)
@click.option("--name", help="Name of the bundle.  [default: the folder's]")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@_source_options
@json_option
def export(
    source: str, target: Path, layer: str, labels: str | None, preprocess: str | None, preset: str | None, kind: str, precision: str,
    name: str | None, force: bool, weights: str | None, size: tuple[int, int] | None, output: str | None, as_json: bool, **overrides: Any,
) -> None:  # fmt: skip
    """Cut SOURCE into a bundle that camrt explains.

    SOURCE is an .onnx file, a .pt2 file of torch.export.save, or package.module:factory for PyTorch (called without arguments,
    with --weights).  The bundle is a folder; it is written only when the cut reproduces the model.

    Example:  camrt export model.onnx -o bundle --preset imagenet --labels labels.txt
    """
    manifest: Manifest = import_exporters().export(
        source, target, layer=layer, labels=labels, preprocess=preprocess, preset=preset, weights=weights, size=size,
        output=output, kind=kind, precision=precision, name=name, force=force, overrides={k: v for k, v in overrides.items() if v is not None},
        progress=lambda step: click.echo(f"{step} …", err=True),
    )  # fmt: skip
    facts = bundle_facts(manifest)
    if as_json:
        click.echo(json.dumps({"bundle": str(target), **manifest_json(manifest)}, indent=2, ensure_ascii=False))
        return
    click.echo(f"{target}: cut at {facts['layer']}\nfeatures {facts['features']}, {manifest.classes} classes")
    click.echo(
        f"the parts and the score graph reproduce the model{' in float16' if manifest.precision else ''} {manifest.split.verdict}"
    )
    if "precision" in facts:
        click.echo(f"precision: {facts['precision']}")
    click.echo(f"gradients: {facts['gradients']}\nphotos: {facts['preprocess']}")
    if "batch" in facts:
        click.echo(f"batch: {facts['batch']}")
