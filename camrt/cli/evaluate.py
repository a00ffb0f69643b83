"""camrt evaluate: which method to trust on one's own model and photos, and what it costs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from camrt.cli.options import engine_options, json_option, open_explainer, printable
from camrt.evaluate import (
    DEFAULT_GROUPS,
    GROUPS,
    Asked,
    Evaluation,
    Summary,
    check_installed,
    describe,
    find_photos,
    read_variants,
    summarise,
    write_report,
)
from camrt.evaluate.scene import TARGETS
from camrt.evaluate.tables import text_table, to_json
from camrt.metrics import PROTOCOLS

FILE = click.Path(path_type=Path, exists=True)


@click.command("evaluate")
@click.argument("bundle")
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="REPORT",
    help="Folder of the report, and of the results as they come; made where it is missing.",
)
@click.option(
    "--labels",
    type=FILE,
    metavar="CSV",
    help="What the photos show: file (its path within PHOTOS), class_index (or class, a name).",
)
@click.option(
    "--boxes", type=FILE, metavar="CSV", help="Where it lies: file, x0, y0, x1, y1 in pixels, and perhaps class_index."
)
@click.option(
    "--masks",
    type=FILE,
    metavar="DIR|CSV",
    help="Where it lies: NAME.png for the photo NAME, white on the object; or file, mask.",
)
@click.option(
    "-m",
    "--methods",
    default="fast",
    show_default=True,
    metavar="NAMES",
    help="Separated by commas, with parameters as in cluster-cam:clusters=32; fast is every method but score-cam and rise, all is every one. The others are compared with the first.",
)
@click.option(
    "--controls/--no-controls",
    default=True,
    show_default=True,
    help="Measure a random map and a spot in the centre beside them.",
)
@click.option(
    "--metrics",
    "groups",
    default=",".join(DEFAULT_GROUPS),
    show_default=True,
    metavar="NAMES",
    help=f"Of {', '.join(GROUPS)}; or all.",
)
@click.option(
    "--protocol", type=click.Choice(list(PROTOCOLS)), default="rise", show_default=True, help="Of insertion and deletion."
)
@click.option(
    "--points", type=click.IntRange(2), help="Points of their curves.  [default: the protocol's; 29 or 113 at 224 x 224]"
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="top",
    show_default=True,
    help="Explain what the network names, or the photo's label.",
)
@click.option(
    "--tolerance",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Pixels around the object that count in the pointing game.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N photos, evenly spread.")
@click.option("--restart", is_flag=True, help="Forget results that REPORT holds.")
@engine_options
@json_option
def evaluate(
    bundle: str, photos: tuple[str, ...], output: Path, labels: Path | None, boxes: Path | None, masks: Path | None, methods: str,
    controls: bool, groups: str, protocol: str, points: int | None, target: str, tolerance: int, limit: int | None, restart: bool,
    as_json: bool, **engine: Any,
) -> None:  # fmt: skip
    """Measure methods on PHOTOS (folders or files): faithfulness, localisation, cost.

    Writes report.html, report.json, methods.csv and photos.csv into REPORT, and results.jsonl as they come: the same command
    goes on where it was stopped, and other methods or photos can be added.

    Example:  camrt evaluate shapes photos -o report --methods cluster-cam,grad-cam
    """
    variants = read_variants(methods.split(","), controls=controls)
    asked = Asked(replace(PROTOCOLS[protocol], points=points), _read_groups(groups), tolerance)
    check_installed(asked.groups)
    found = find_photos(photos)
    explainer = open_explainer(bundle, **engine)
    subjects = describe(found, explainer.manifest, labels=labels, boxes=boxes, masks=masks)
    if limit is not None and limit < len(subjects):
        subjects = [subjects[len(subjects) * i // limit] for i in range(limit)]
    summary = _measured(Evaluation(explainer, subjects, variants, asked, target), output, restart)
    page = write_report(summary, output)
    told = [json.dumps(to_json(summary), indent=2)] if as_json else [*text_table(summary), *_remarks(summary), f"→ {page}"]
    click.echo("\n".join(told))
    _tell_failed(summary)


def _measured(evaluation: Evaluation, output: Path, restart: bool) -> Summary:
    try:
        with click.progressbar(length=evaluation.steps, label="Measuring", file=sys.stderr, show_pos=True) as bar:
            records = evaluation.run(output, restart=restart, step=bar.update)
    except KeyboardInterrupt:
        click.echo(f"What was measured is kept in {output}; the same command goes on with it.", err=True)
        raise
    return summarise(evaluation, records)


def _tell_failed(summary: Summary) -> None:
    """Name the photos that could not be measured, and end with exit code 1 where there are any."""
    for name, error in summary.failed.items():
        click.echo(f"Error: {printable(name)}: {printable(error)}", err=True)
    if summary.failed:
        click.echo(f"{len(summary.failed)} of {len(summary.evaluation.subjects)} photos could not be measured.", err=True)
        sys.exit(1)


def _read_groups(text: str) -> tuple[str, ...]:
    given = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in given if name not in (*GROUPS, "all")]
    if unknown or not given:
        raise click.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is not among {', '.join(GROUPS)}, all.", param_hint="--metrics"
        )
    return GROUPS if "all" in given else tuple(name for name in GROUPS if name in given)


def _remarks(summary: Summary) -> list[str]:
    """Return what a reader of the table must know."""
    right, labelled = summary.accuracy
    photos = f"{len(summary.photos)} photos" + (f", {right} of {labelled} named rightly" if labelled else "")
    protocol = summary.evaluation.asked.protocol
    points = f", {protocol.points} points" if protocol.points else ""
    return [
        "",
        f"{photos}; protocol {protocol.name}{points}; + and -: better and worse than {summary.reference} with 95 % confidence.",
    ]
