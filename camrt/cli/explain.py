"""camrt explain: heatmaps of photos, by one method or by all of them side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from camrt.cli.clock import Clock
from camrt.cli.options import (
    engine_options,
    json_option,
    max_pixels_option,
    method_options,
    open_explainer,
    printable,
    target_options,
)
from camrt.errors import CamrtError, ExplanationError
from camrt.explainer import Explainer
from camrt.explanation import Explanation, Target, slug, unused
from camrt.files import write_together
from camrt.heatmap import Outcome
from camrt.methods import METHODS, get_method
from camrt.photo import Photo, load_photo
from camrt.render import encode_png
from camrt.sheet import Attempt, attempt_all, contact_sheet
from camrt.stream import OF_ONE_IMAGE, Failure

ALL = "all"  # in the place of a method
EXPLAIN = "explain"  # the lap whose stages are told

Told = tuple[dict[str, Any], str] | CamrtError  # an explanation as JSON has it and as a person reads it, or why there is none


@click.command()
@click.argument("bundle")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@target_options
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
@max_pixels_option
@click.option("--timings", is_flag=True, help="Print where the time goes, from the start of the process.")
@engine_options
@json_option
def explain(
    bundle: str, images: tuple[str, ...], targets: tuple[str, ...], top: int | None, versus: str | None, method: str,
    parameters: dict[str, str], output: Path, alpha: float, max_pixels: int, timings: bool, as_json: bool, **engine: Any,
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
    clock = Clock()
    explainer = open_explainer(bundle, max_pixels, **engine)
    clock.lap("open the bundle")
    options: dict[str, Any] = {"targets": list(targets) or None, "top": top, "versus": versus}
    steps = len(METHODS) if method == ALL else 1
    lines, failures, stages = list[tuple[str, bool]](), 0, dict[str, float]()
    try:
        with click.progressbar(
            length=len(images) * steps, label="Explaining", file=sys.stderr, hidden=len(images) * steps < 2
        ) as bar:
            if method == ALL:
                results = _compared(explainer, images, output, alpha, lambda: bar.update(1), options)
            else:
                results = _explained(explainer, images, output, alpha, options | {"method": method, **settings}, clock, stages)
            with closing(results):  # whoever reads stdout may leave
                for done, result in enumerate(results, 1):
                    if isinstance(result, CamrtError):
                        failures += 1
                        lines.append((f"Error: {printable(str(result))}", True))
                    elif as_json:
                        click.echo(json.dumps(result[0], ensure_ascii=False))
                    else:
                        lines.append((result[1], False))
                    bar.update(done * steps - bar.pos)
    finally:  # what is done is told, whatever stopped the rest
        for line, is_error in lines:
            click.echo(line, err=is_error)
    if timings:
        click.echo(clock.table(stages, of=EXPLAIN), err=True)
    if failures:
        if len(images) > 1:
            click.echo(f"{failures} of {len(images)} images could not be explained.", err=True)
        sys.exit(1)


def _explained(
    explainer: Explainer,
    images: tuple[str, ...],
    folder: Path,
    alpha: float,
    options: dict[str, Any],
    clock: Clock,
    stages: dict[str, float],
) -> Generator[Told, None, None]:
    """Explain photos by one method, write their files, and add the milliseconds of the stages."""
    names: list[str] = []
    with closing(_explanations(explainer, images, options)) as results:
        for result in results:
            clock.lap(EXPLAIN)
            if isinstance(result, Failure):
                yield result.error
                continue
            for stage, ms in result.run.timings.items():
                if stage != "total":
                    stages[stage] = stages.get(stage, 0.0) + ms
            names.append(unused(slug(result.photo.name), names))
            try:
                yield _write(result, folder, names[-1], alpha)
            except ExplanationError as error:
                yield error
            clock.lap("render and write")


def _explanations(
    explainer: Explainer, images: tuple[str, ...], options: dict[str, Any]
) -> Generator[Explanation | Failure, None, None]:
    """Explain photos in a stream, a single one without the threads that a stream needs."""
    if len(images) > 1:
        yield from explainer.explain_many(images, **options)
        return
    try:
        yield explainer.explain(images[0], **options)
    except OF_ONE_IMAGE as error:
        yield Failure(images[0], error)


def _write(explanation: Explanation, folder: Path, name: str, alpha: float) -> tuple[dict[str, Any], str]:
    """Write an explanation's files, and return it as JSON has it and as a person reads it."""
    *overlays, heatmap, _ = explanation.save(folder, name, alpha=alpha)
    rows = [
        f"  {printable(t.title)}  {t.probability:.3f}{_failure(t)}  →  {file}"
        for t, file in zip(explanation.targets, overlays, strict=True)
    ]
    run = explanation.run
    notes = f"; {', '.join(explanation.notes)}" if explanation.notes else ""
    title = f"{printable(str(explanation.photo.source))}  ({run.method}, {run.cost} on {run.provider}{notes})"
    files = {"overlays": [str(file) for file in overlays], "heatmap": str(heatmap)}
    return explanation.to_json() | {"files": files}, "\n".join([title, *rows])


def _compared(
    explainer: Explainer,
    images: tuple[str, ...],
    folder: Path,
    alpha: float,
    step: Callable[[], None],
    options: dict[str, Any],
) -> Generator[Told, None, None]:
    """Explain photos by every method, one after the other."""
    names: list[str] = []
    for image in images:
        try:
            photo = load_photo(image, explainer.max_pixels)
            names.append(unused(slug(photo.name), names))
            yield _compare(explainer, photo, folder, names[-1], alpha, step, options)
        except OF_ONE_IMAGE as error:
            yield error


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
