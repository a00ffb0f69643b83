"""camrt explain: heatmaps of photos, by one method or by all of them side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from camrt.cli.options import engine_options, json_option, method_options, open_explainer, printable
from camrt.errors import DeviceMemoryError, ExplanationError, ImageError
from camrt.explainer import Explainer
from camrt.explanation import Target, slug, unused
from camrt.files import write_together
from camrt.heatmap import Outcome
from camrt.methods import METHODS, get_method
from camrt.photo import MAX_PIXELS, Photo, load_photo
from camrt.render import encode_png
from camrt.sheet import Attempt, attempt_all, contact_sheet

ALL = "all"  # in the place of a method


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
@click.option("--versus", metavar="CLASS", help="Explain why the target and not CLASS.")
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
    bundle: str, images: tuple[str, ...], targets: tuple[str, ...], top: int | None, versus: str | None, method: str,
    parameters: dict[str, str], output: Path, alpha: float, max_pixels: int, providers: tuple[str, ...], max_masked_batch: int,
    threads: int, as_json: bool,
) -> None:  # fmt: skip
    """Show where BUNDLE's model looks when it names a class in each IMAGE.

    Writes PHOTO.CLASS.png (the heatmap over the photo), PHOTO.npy (the heatmaps, float32) and PHOTO.explanation.json; with
    --method all one PHOTO.methods.png, every method side by side with its cost.

    Example:  camrt explain shapes photo.png --top 2 -o out
    """
    if targets and top:
        raise click.UsageError("Give --target or --top, not both.")
    if method == ALL and parameters:
        raise click.UsageError("--param is for one method; leave it out with --method all.")
    settings = {} if method == ALL else get_method(method).settings(parameters)
    explainer = open_explainer(bundle, providers, max_masked_batch, threads, max_pixels)
    options: dict[str, Any] = {"targets": list(targets) or None, "top": top, "versus": versus}
    failures, lines, names = 0, list[tuple[str, bool]](), list[str]()
    steps = len(METHODS) if method == ALL else 1
    total = len(images) * steps
    try:
        with click.progressbar(length=total, label="Explaining", file=sys.stderr, hidden=total < 2) as bar:
            for done, image in enumerate(images, 1):
                try:
                    photo = load_photo(image, max_pixels)
                    names.append(unused(slug(photo.name), names))
                    if method == ALL:
                        described, line = _compare(explainer, photo, output, names[-1], alpha, lambda: bar.update(1), options)
                    else:
                        settled = options | {"method": method, **settings}
                        described, line = _explain(explainer, photo, output, names[-1], alpha, settled)
                    if as_json:
                        click.echo(json.dumps(described, ensure_ascii=False))
                    else:
                        lines.append((line, False))
                except (ImageError, ExplanationError, DeviceMemoryError) as error:
                    failures += 1
                    lines.append((f"Error: {printable(str(error))}", True))
                bar.update(done * steps - bar.pos)
    finally:  # what is done is told, whatever stopped the rest
        for line, is_error in lines:
            click.echo(line, err=is_error)
    if failures:
        if len(images) > 1:
            click.echo(f"{failures} of {len(images)} images could not be explained.", err=True)
        sys.exit(1)


def _explain(
    explainer: Explainer, photo: Photo, folder: Path, name: str, alpha: float, options: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Explain a photo by one method, write its files, and return it as JSON has it and as a person reads it."""
    explanation = explainer.explain(photo, **options)
    *overlays, heatmap, _ = explanation.save(folder, name, alpha=alpha)
    rows = [
        f"  {printable(t.title)}  {t.probability:.3f}{_failure(t)}  →  {file}"
        for t, file in zip(explanation.targets, overlays, strict=True)
    ]
    run = explanation.run
    notes = f"; {', '.join(explanation.notes)}" if explanation.notes else ""
    title = f"{printable(str(photo.source))}  ({run.method}, {run.cost} on {run.provider}{notes})"
    files = {"overlays": [str(file) for file in overlays], "heatmap": str(heatmap)}
    return explanation.to_json() | {"files": files}, "\n".join([title, *rows])


def _compare(
    explainer: Explainer, photo: Photo, folder: Path, name: str, alpha: float, step: Callable[[], None], options: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Explain a photo by every method, write the contact sheet, and return it as JSON has it and as a person reads it."""
    attempts = attempt_all(explainer, photo, step=step, **options)
    sheet = encode_png(contact_sheet(attempts, alpha=alpha))
    try:
        (file,) = write_together(folder, {f"{name}.methods.png": sheet})
    except OSError as error:
        raise ExplanationError(f"{folder}: the contact sheet cannot be written ({error.strerror or error}).") from None
    width = max(map(len, METHODS))
    rows = [f"  {a.method:<{width}}  {_told(a)}" for a in attempts]
    described = [a.explanation.to_json() if a.explanation else {"method": a.method, "unavailable": a.reason} for a in attempts]
    return {"methods": described, "files": {"sheet": str(file)}}, "\n".join(
        [f"{printable(str(photo.source))}  →  {file}", *rows]
    )


def _told(attempt: Attempt) -> str:
    if attempt.explanation is None:
        return f"not available: {printable(attempt.reason)}"
    return attempt.explanation.run.cost + "".join(_failure(t) for t in attempt.explanation.targets)


def _failure(target: Target) -> str:
    return "" if target.outcome is Outcome.OK else f"  [{target.outcome.word}]"
