"""camrt bench: what an explanation costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from camrt.bench import WARM_UP, Bench
from camrt.bench import bench as measure
from camrt.cli.options import engine_options, json_option, open_explainer, parameter_option
from camrt.cost import Cost
from camrt.explainer import DEFAULT_METHOD
from camrt.explanation import counted
from camrt.floor import Spread
from camrt.footprint import Footprint
from camrt.methods import get_method
from camrt.photo import load_photo


@click.command("bench")
@click.argument("bundle")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The uncut .onnx model as the floor.  [default: head → tail]",
)
@click.option("--image", metavar="FILE", help="Photo to explain.  [default: a coloured pattern]")
@click.option("--runs", type=click.IntRange(1), default=10, show_default=True, help="Rounds.")
@click.option("--images", type=click.IntRange(1), default=32, show_default=True, help="Images of the stream in a round.")
@click.option(
    "-m", "--method", "methods", multiple=True, default=[DEFAULT_METHOD], show_default=True, metavar="NAME",
    help="Method to measure; may be repeated. The first also explains the stream.",
)  # fmt: skip
@parameter_option
@engine_options
@json_option
def bench(
    bundle: str, source: Path | None, image: str | None, runs: int, images: int, methods: tuple[str, ...],
    parameters: dict[str, str], as_json: bool, **engine: Any,
) -> None:  # fmt: skip
    """Measure explanations against the forward passes that they need.

    The floor is the bare network in the batch size that is best on this machine; everything is run in turns, and the ratio
    is the median over the rounds.

    Example:  camrt bench bundle --source model.onnx -p clusters=10
    """
    if parameters and len(methods) > 1:
        raise click.UsageError("--param is for one method; leave it out, or name one --method.")
    asked = {method: get_method(method).settings(parameters) for method in methods}
    explainer = open_explainer(bundle, **engine)
    photo = load_photo(image).pixels if image else None
    with click.progressbar(length=runs + WARM_UP, label="Measuring", file=sys.stderr) as bar:
        result = measure(
            explainer, source=source, photo=photo, runs=runs, methods=asked, images=images, step=lambda: bar.update(1),
        )  # fmt: skip
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else "\n".join(_lines(result)))


def _lines(b: Bench) -> Iterable[str]:
    """Return the result as a person reads it."""
    yield from _table(f"floor: {b.floor_of}", [(f"{size} a call", s) for size, s in b.floor.items()], "ms an image")
    for cost in b.costs:
        yield ""
        yield from _cost_lines(cost)
    yield ""
    first = b.costs[0].method
    yield from _table(
        f"stream of {b.stream.images} ({first})", [("images a second", b.stream.per_second), ("over the floor", b.stream.ratio)]
    )
    yield ""
    yield from _table(f"explain ({first}), otherwise", list(b.effects.items()), "ms")
    yield ""
    yield from _table("beside it, on the photo", list(b.beside.items()), "ms")
    yield ""
    yield f"peak memory: bare network {_memory(b.floor_memory)}, explanation {_memory(b.memory)}"
    threads = f"{b.threads} threads" if b.threads else "a thread per core"
    yield f"{b.bundle} on {b.provider}, {threads}, {b.runs} rounds, " + ", ".join(f"{k} {v}" for k, v in b.versions.items())


def _memory(found: Footprint | None) -> str:
    if found is None:
        return "not measured"
    device = "" if found.device is None else f" and {found.device:.0f} MB on the device"
    return f"{found.resident:.0f} MB{device}"


def _cost_lines(c: Cost) -> Iterable[str]:
    passes = counted(c.passes, c.tail_passes, c.backward_passes)
    stages = [(f"  {stage}", spread) for stage, spread in c.stages.items() if stage != "total"]
    return _table(
        f"{c.method} ({passes})", [("explain", c.explain), *stages, ("floor", c.floor), ("over the floor", c.ratio)], "ms"
    )


def _table(title: str, rows: list[tuple[str, Spread]], unit: str = "") -> Iterable[str]:
    yield f"{title:<44}  {'median':>9}  quartiles{f' ({unit})' if unit else ''}"
    for name, s in rows:
        yield f"  {name:<42}  {s.median:>9.3f}  {s.low:.3f} … {s.high:.3f}"
