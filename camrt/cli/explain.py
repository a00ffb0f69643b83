"""camrt explain: heatmaps of photos."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from camrt.cli.options import engine_options, json_option, method_options, open_explainer, printable
from camrt.errors import DeviceMemoryError, ExplanationError, ImageError
from camrt.explanation import Explanation, slug, unused
from camrt.heatmap import Outcome
from camrt.methods import get_method
from camrt.photo import MAX_PIXELS


@click.command()
@click.argument("bundle")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="CLASS",
    help="Class index, name or synonym; may be repeated.  [default: the top class]",
)
@click.option("-n", "--top", type=click.IntRange(1), metavar="N", help="Explain the N most probable classes.")
@method_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("explanations"),
    show_default=True,
    metavar="DIR",
    help="Folder for the files.",
)
@click.option(
    "--alpha", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Weight of the heatmap over the photo."
)
@click.option(
    "--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, show_default=True, help="Largest photo that is decoded."
)
@engine_options
@json_option
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
    settings = get_method(method).settings(parameters)
    explainer = open_explainer(bundle, providers, max_masked_batch, threads, max_pixels)
    options: dict[str, Any] = {"targets": list(targets) or None, "top": top, "method": method, **settings}
    failures, lines, names = 0, list[tuple[str, bool]](), list[str]()
    try:
        with click.progressbar(images, label="Explaining", file=sys.stderr, hidden=len(images) < 2) as bar:
            for image in bar:
                try:
                    explanation = explainer.explain(image, **options)
                    names.append(unused(slug(explanation.photo.name), names))
                    files = explanation.save(output, names[-1], alpha=alpha)
                except (ImageError, ExplanationError, DeviceMemoryError) as error:
                    failures += 1
                    lines.append((f"Error: {printable(str(error))}", True))
                    continue
                if as_json:
                    click.echo(json.dumps(explanation.to_json() | {"files": _by_kind(files)}, ensure_ascii=False))
                else:
                    lines.append((_describe(explanation, files), False))
    finally:  # what is done is told, whatever stopped the rest
        for line, is_error in lines:
            click.echo(line, err=is_error)
    if failures:
        if len(images) > 1:
            click.echo(f"{failures} of {len(images)} images could not be explained.", err=True)
        sys.exit(1)


def _by_kind(files: list[Path]) -> dict[str, Any]:
    """Return the files' paths as explanation.json has their names."""
    *overlays, heatmap, _ = map(str, files)
    return {"overlays": overlays, "heatmap": heatmap}


def _describe(explanation: Explanation, files: list[Path]) -> str:
    rows = [
        f"  {printable(t.name)}  {t.probability:.3f}{'' if t.outcome is Outcome.OK else f'  [{t.outcome.word}]'}  →  {file}"
        for t, file in zip(explanation.targets, files, strict=False)
    ]
    run = explanation.run
    notes = f"; {', '.join(explanation.notes)}" if explanation.notes else ""
    total = f"{run.passes} passes, {run.timings['total']:.0f} ms on {run.provider}{notes}"
    return "\n".join([f"{printable(str(explanation.photo.source))}  ({run.method}, {total})", *rows])
