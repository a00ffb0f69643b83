"""The command line: open, call one library function, print.  Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from camrt import __version__
from camrt.bench import Bench, bench
from camrt.bundle import Manifest, open_bundle
from camrt.errors import CamrtError, ImageError, ParameterError, UnknownTarget
from camrt.explainer import DEFAULT_METHOD, Explainer, load
from camrt.explanation import Explanation, slug
from camrt.heatmap import Outcome
from camrt.methods import METHODS
from camrt.photo import MAX_PIXELS, load_photo
from camrt.providers import INSTALL, NAMES, available, telemetry, versions

# Which exit code an error has: 2 for what was asked wrongly, 1 for what went wrong.
MISUSE = (ParameterError,)
FAILURE = (UnknownTarget,)


class Group(click.Group):
    """Turns camrt's errors into one line and an exit code, and warnings into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            click.echo(f"Warning: {message}", err=True)

        with warnings.catch_warnings():
            warnings.showwarning = show
            warnings.simplefilter("always", UserWarning)
            warnings.simplefilter("always", RuntimeWarning)
            try:
                return super().invoke(ctx)
            except CamrtError as error:
                failure = click.ClickException(str(error))
                failure.exit_code = 2 if isinstance(error, MISUSE) and not isinstance(error, FAILURE) else 1
                raise failure from error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="camrt")
def camrt() -> None:
    """Show where a CNN looked when it named a class, on machines without PyTorch.

    Example:  camrt explain shapes photo.png --top 2
    """


# --- shared options -----------------------------------------------------------------------------------------------------
def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--threads", type=click.IntRange(0), default=0, show_default="one per core", help="Threads of one operator."),
        click.option("--max-masked-batch", type=click.IntRange(1), default=64, show_default=True, help="Most masked images in one call."),
        click.option("--provider", "providers", multiple=True, metavar="NAME", help="Execution provider; several are tried in order.  [default: CUDA if installed, else the CPU]"),
    ):  # fmt: skip
        command = option(command)
    return command


def _method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("-p", "--param", "parameters", multiple=True, metavar="NAME=VALUE", callback=_read_parameters, help="A parameter of the method, for instance clusters=32."),
        click.option("-m", "--method", default=DEFAULT_METHOD, show_default=True, metavar="NAME", help="How the map is computed; see camrt methods."),
    ):  # fmt: skip
        command = option(command)
    return command


def _read_parameters(_: click.Context, __: click.Parameter, given: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, equals, _value in pairs:
        if not equals or not name:
            raise click.BadParameter(f"write NAME=VALUE, for instance clusters=32; got {name!r}.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _open(bundle: str, providers: tuple[str, ...], max_masked_batch: int, threads: int, max_pixels: int = MAX_PIXELS) -> Explainer:
    names = list(providers) or None
    return load(bundle, names, max_masked_batch=max_masked_batch, threads=threads, max_pixels=max_pixels)


# --- explain ------------------------------------------------------------------------------------------------------------
@camrt.command()
@click.argument("bundle")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-t", "--target", "targets", multiple=True, metavar="CLASS", help="Class name or index; may be repeated.  [default: the top class]")
@click.option("-n", "--top", type=click.IntRange(1), help="Explain the so many most probable classes.")
@_method_options
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("explanations"), show_default=True, metavar="DIR", help="Folder for the files.")
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Weight of the heatmap over the photo.")
@click.option("--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, show_default=True, help="Largest photo that is decoded.")
@_engine_options
@_json_option
def explain(
    bundle: str, images: tuple[str, ...], targets: tuple[str, ...], top: int | None, method: str, parameters: dict[str, str],
    output: Path, alpha: float, max_pixels: int, providers: tuple[str, ...], max_masked_batch: int, threads: int, as_json: bool,
) -> None:  # fmt: skip
    """Show where BUNDLE's model looks when it names a class in each IMAGE.

    Writes PHOTO.CLASS.png (the heatmap over the photo), PHOTO.npy (the heatmaps, float32) and PHOTO.explanation.json.

    Example:  camrt explain shapes photo.png --top 2 -o out
    """
    if targets and top:
        raise click.UsageError("Give --target or --top, not both.")
    explainer = _open(bundle, providers, max_masked_batch, threads, max_pixels)
    asked: dict[str, Any] = {"targets": list(targets)} if targets else {"top": top}
    failures, lines, names = 0, [], _Names()
    with click.progressbar(images, label="Explaining", file=sys.stderr, hidden=len(images) < 2) as bar:
        for image in bar:
            try:
                explanation = explainer.explain(image, method=method, **asked, **parameters)
            except ImageError as error:
                failures += 1
                lines.append((f"Error: {error}", True))
                continue
            files = explanation.save(output, names.of(explanation), alpha=alpha)
            if as_json:
                click.echo(json.dumps(explanation.to_json() | {"files": [str(f) for f in files]}, ensure_ascii=False))
            else:
                lines.append((_describe(explanation, files), False))
    for line, is_error in lines:
        click.echo(line, err=is_error)
    if failures:
        click.echo(f"{failures} of {len(images)} images could not be explained.", err=True)
        sys.exit(1)


class _Names:
    """Gives the second photo of a name the name `photo.2`."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def of(self, explanation: Explanation) -> str:
        name = slug(explanation.photo.name)
        self._seen[name] = self._seen.get(name, 0) + 1
        return name if self._seen[name] == 1 else f"{name}.{self._seen[name]}"


def _describe(explanation: Explanation, files: list[Path]) -> str:
    rows = [
        f"  {t.name}  {t.probability:.3f}{'' if t.outcome is Outcome.OK else f'  [{t.outcome.word}]'}  →  {file}"
        for t, file in zip(explanation.targets, files, strict=False)
    ]
    run = explanation.run
    notes = f"; {', '.join(explanation.notes)}" if explanation.notes else ""
    total = f"{run.passes} passes, {run.timings['total']:.0f} ms on {run.provider}{notes}"
    return "\n".join([f"{explanation.photo.source}  ({run.method}, {total})", *rows])


# --- what there is --------------------------------------------------------------------------------------------------------
@camrt.command()
@click.argument("bundle", required=False)
@_json_option
def info(bundle: str | None, as_json: bool) -> None:
    """Describe BUNDLE, or this installation when none is named.

    Example:  camrt info shapes
    """
    facts = _bundle_facts(open_bundle(bundle).manifest) if bundle else _installation_facts()
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


def _bundle_facts(m: Manifest) -> dict[str, Any]:
    p = m.preprocess
    resize = p.resize if isinstance(p.resize, str) else f"shorter side {p.resize}" if isinstance(p.resize, int) else f"{p.resize[0]}x{p.resize[1]}"
    cut = f", {m.activation} cut off" if m.activation else ""
    labels = f"{', '.join(label.split(',')[0] for label in m.labels[:8])}{', …' if m.classes > 8 else ''}" if m.labels else "none"
    return {
        "name": m.name,
        "source": f"{m.source.file} ({m.source.producer or 'producer unknown'}), SHA-256 {m.source.sha256[:16]}…",
        "exporter": m.source.exporter,
        "layer": f"{m.layer.name} ({m.layer.operator}{f', module {m.layer.module}' if m.layer.module else ''}): {m.layer.reason}",
        "image": repr(m.image),
        "features": repr(m.features),
        "output": f"{m.output!r}, {m.kind}{cut}",
        "labels": labels,
        "preprocess": f"resize {resize}, {p.interpolation}, {p.color}, scale {p.scale:.6g}, mean {list(p.mean)}, std {list(p.std)}",
        "split error": f"{m.split.error:.3g} ({m.split.bound}; tolerance {m.split.tolerance:g}, largest logit {m.split.largest_logit:.3g})",
        "gradients": "yes" if m.gradient_missing is None else f"no: {m.gradient_missing}",
        "weights": f"{len(m.weights)} tensors, {sum(w.length for w in m.weights) / 1e6:.2f} MB",
    }  # fmt: skip


def _installation_facts() -> dict[str, Any]:
    have = available()
    lacking = {name: line for name, line in INSTALL.items() if name not in have}
    return {
        **versions(),
        "python": sys.version.split()[0],
        "providers": ", ".join(have),
        **{f"for {name}": line for name, line in lacking.items()},
        "telemetry": telemetry(),
    }


@camrt.command()
@_json_option
def methods(as_json: bool) -> None:
    """List the methods with their cost, parameters and papers.

    Example:  camrt methods
    """
    if as_json:
        click.echo(json.dumps([_method_facts(name) for name in METHODS], indent=2))
        return
    for name, method in METHODS.items():
        click.echo(f"{name}\n  needs {method.needs}; {method.passes} forward passes an image\n  {method.citation}")
        width = max(map(len, method.parameters), default=0)
        for parameter, spec in method.parameters.items():
            click.echo(f"    {parameter:<{width}}  {spec.default!s:<12} {spec.help} ({spec.allowed})")


def _method_facts(name: str) -> dict[str, Any]:
    method = METHODS[name]
    parameters = {p: {"default": s.default, "allowed": s.allowed, "help": s.help} for p, s in method.parameters.items()}
    return {"name": name, "needs": method.needs, "passes": method.passes, "citation": method.citation, "parameters": parameters}


# --- bench ----------------------------------------------------------------------------------------------------------------
@camrt.command("bench")
@click.argument("bundle")
@click.option("--source", type=click.Path(path_type=Path), metavar="FILE", help="The uncut .onnx model as the floor.  [default: head → tail]")
@click.option("--image", metavar="FILE", help="Photo to explain.  [default: a coloured pattern]")
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Rounds.")
@_method_options
@_engine_options
@_json_option
def bench_command(
    bundle: str, source: Path | None, image: str | None, runs: int, method: str, parameters: dict[str, str],
    providers: tuple[str, ...], max_masked_batch: int, threads: int, as_json: bool,
) -> None:  # fmt: skip
    """Measure what an explanation costs over the bare forward passes it needs.

    Example:  camrt bench bundle --source model.onnx -p clusters=10
    """
    explainer = _open(bundle, providers, max_masked_batch, threads)
    photo = load_photo(image).pixels if image else None
    with click.progressbar(length=runs + 3, label="Measuring", file=sys.stderr) as bar:
        result = bench(explainer, source=source, photo=photo, runs=runs, method=method, step=lambda: bar.update(1), **parameters)
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else _bench_table(result))


def _bench_table(b: Bench) -> str:
    rows: list[tuple[str, Any]] = [
        (f"floor: {b.floor_of}, 1 image", b.floor_one),
        (f"floor: {b.floor_of}, {b.passes - 1} images", b.floor_batch),
        (f"explain ({b.method}, {b.passes} passes)", b.explain),
        *((f"  {stage}", spread) for stage, spread in b.stages.items() if stage != "total"),
        *((f"beside: {name}", spread) for name, spread in b.beside.items()),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':<{width}}  {'median':>9}  quartiles (ms)"]
    lines += [f"{name:<{width}}  {s.median:>9.2f}  {s.low:.2f} … {s.high:.2f}" for name, s in rows]
    lines += [
        f"ratio explain / floor: {b.ratio:.3f}",
        f"peak memory: {b.memory_floor:.0f} MB after one bare image, {b.memory_explain:.0f} MB at the end",
        f"{b.bundle} on {b.provider}, {b.runs} rounds, " + ", ".join(f"{k} {v}" for k, v in b.versions.items()),
    ]
    return "\n".join(lines)


# --- making bundles -------------------------------------------------------------------------------------------------------
def _exporters() -> Any:
    """Import exporters, which need packages that the runtime does not."""
    try:
        import exporters
    except ImportError as error:
        raise click.ClickException(f"This command needs the exporters' packages ({error}): pip install 'camrt[export]'.") from None
    return exporters


def _read_size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdecimal() and int(p) > 0 for p in parts):
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
        click.option("--output-name", "output", metavar="NAME", help="The output to explain, where the model has several."),
        click.option("--size", callback=_read_size, metavar="N|HxW", help="Height and width of the input, for PyTorch (default 224) and where the model leaves them open."),
        click.option("--weights", metavar="FILE", help="State dict (.pt, .pth or .safetensors) for package.module:factory."),
    ):  # fmt: skip
        command = option(command)
    return command


@camrt.command()
@click.argument("source")
@_source_options
@_json_option
def layers(source: str, weights: str | None, size: tuple[int, int] | None, output: str | None, as_json: bool) -> None:
    """List where SOURCE can be cut, best first.

    SOURCE is an .onnx file, or package.module:factory for PyTorch.

    Example:  camrt layers model.onnx
    """
    found = _exporters().layers(source, weights=weights, size=size, output=output)
    if as_json:
        click.echo(json.dumps([vars(layer) for layer in found], indent=2))
        return
    click.echo(f"{found[0].tensor} is {found[0].reason}.\n")
    rows = [("", "tensor", "operator", "C x h x w", "stride", "module")]
    for layer in found:
        stride = f"{layer.stride[0]:g}" if layer.stride[0] == layer.stride[1] else f"{layer.stride[0]:.3g} x {layer.stride[1]:.3g}"
        shape = " x ".join(map(str, layer.shape))
        rows.append(("→" if layer is found[0] else "", layer.tensor, layer.operator, shape, stride, layer.module or ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())


@camrt.command()
@click.argument("source")
@click.option("-o", "--output", "target", required=True, type=click.Path(path_type=Path), metavar="BUNDLE", help="Folder to write.")
@click.option("--layer", default="auto", show_default=True, metavar="NAME", help="Tensor, node or PyTorch module to cut at; see camrt layers.")
@click.option("--labels", metavar="FILE", help=".txt with one label a line, or .json list or dict.")
@click.option("--preprocess", metavar="FILE", help="JSON file that describes the preprocessing.")
@click.option("--preset", type=click.Choice(["imagenet"]), help="Preprocessing to start from.")
@click.option("--scale", type=float, help="Factor on pixels 0…255.")
@click.option("--mean", callback=_read_numbers, metavar="A,B,C", help="Subtracted after scaling, in the network's channel order.")
@click.option("--std", callback=_read_numbers, metavar="A,B,C", help="Divided by after the mean.")
@click.option("--resize", metavar="N|WxH|letterbox", help="Shorter side, exact size, or fit inside.")
@click.option("--crop", type=int, metavar="N", help="Centre crop; must be the network's input.")
@click.option("--color", type=click.Choice(["rgb", "bgr"]), help="Channel order of the network.")
@click.option("--interpolation", type=click.Choice(["linear", "area", "cubic"]), help="How photos are resized.")
@click.option("--name", help="Name of the bundle.  [default: the folder's]")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@_source_options
@_json_option
def export(
    source: str, target: Path, layer: str, labels: str | None, preprocess: str | None, preset: str | None, name: str | None,
    force: bool, weights: str | None, size: tuple[int, int] | None, output: str | None, as_json: bool, **overrides: Any,
) -> None:  # fmt: skip
    """Cut SOURCE into a bundle that camrt explains.

    SOURCE is an .onnx file, or package.module:factory for PyTorch (called without arguments, with --weights).  The bundle is
    a folder; it is written only when the cut reproduces the model.

    Example:  camrt export model.onnx -o bundle --preset imagenet --labels labels.txt
    """
    manifest: Manifest = _exporters().export(
        source, target, layer=layer, labels=labels, preprocess=preprocess, preset=preset, weights=weights, size=size,
        output=output, name=name, force=force, overrides={k: v for k, v in overrides.items() if v is not None},
        progress=lambda step: click.echo(f"{step} …", err=True),
    )  # fmt: skip
    facts = _bundle_facts(manifest)
    if as_json:
        click.echo(json.dumps({"bundle": str(target), **facts}, indent=2, ensure_ascii=False))
        return
    click.echo(f"{target}: cut at {facts['layer']}\nfeatures {facts['features']}, {manifest.classes} classes")
    click.echo(f"tail(head(x)) and the score graph reproduce the model to {manifest.split.error:.2g} ({manifest.split.bound}).")
