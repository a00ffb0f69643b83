"""camrt bench: what an explanation costs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from camrt.bench import WARM_UP, Bench
from camrt.bench import bench as measure
from camrt.cli.options import engine_options, json_option, method_options, open_explainer
from camrt.explanation import counted
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
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Rounds.")
@method_options
@engine_options
@json_option
def bench(
    bundle: str, source: Path | None, image: str | None, runs: int, method: str, parameters: dict[str, str],
    providers: tuple[str, ...], max_masked_batch: int, threads: int, as_json: bool,
) -> None:  # fmt: skip
    """Measure an explanation against its forward passes.

    Example:  camrt bench bundle --source model.onnx -p clusters=10
    """
    settings = get_method(method).settings(parameters)
    explainer = open_explainer(bundle, providers, max_masked_batch, threads)
    photo = load_photo(image).pixels if image else None
    with click.progressbar(length=runs + WARM_UP, label="Measuring", file=sys.stderr) as bar:
        result = measure(
            explainer, source=source, photo=photo, runs=runs, method=method, step=lambda: bar.update(1), **settings
        )
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else _bench_table(result))


def _bench_table(b: Bench) -> str:
    rows: list[tuple[str, Any]] = [
        (f"floor: {b.floor_of}, 1 image", b.floor_one),
        *([(f"floor: {b.floor_of}, {b.passes - 1} images", b.floor_batch)] if b.floor_batch else []),
        (f"explain ({b.method}, {counted(b.passes, b.tail_passes, b.backward_passes)})", b.explain),
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
