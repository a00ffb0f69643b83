"""camrt report: what a dataset of heatmaps shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from camrt.cli.options import json_option, lacking, printable
from camrt.errors import BatchError
from camrt.files import write_together

if TYPE_CHECKING:
    from camrt.scale.report import Dataset, Summary

PAGE = "report.html"


@click.command("report")
@click.argument("output")
@click.option("-o", "--page", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where the page is written.  [default: OUTPUT/report.html]")
@click.option("--photos/--no-photos", default=True, show_default=True, help="Read the photos that are shown, and put them into the page; else heatmaps alone.")
@json_option
def report(output: str, file: Path | None, photos: bool, as_json: bool) -> None:
    """Show on one page what OUTPUT, a dataset that camrt batch wrote, tells of the model.

    Names the classes for which the model looks at the same place in photo after photo, as it does where it has learned a
    watermark or a border instead of the subject; counts outcomes; shows the photos of which it is least sure, and the strangest
    heatmaps. The page needs nothing beside it.

    Example:  camrt report heatmaps
    """
    try:
        from camrt.scale.report import open_dataset, page, to_json
    except ModuleNotFoundError as error:
        raise lacking(error, "camrt report", "batch") from None
    dataset = open_dataset(output)
    summary = _summary(dataset)
    place = _write(dataset, page(summary, photos=photos).encode(errors="replace"), file)
    told = json.dumps(to_json(summary) | {"page": place}) if as_json else f"{_said(summary)}\n→ {printable(place)}"
    click.echo(told)


def _summary(dataset: Dataset) -> Summary:
    from camrt.scale.report import PASSES, summarise, survey

    with click.progressbar(length=PASSES * len(dataset.shards), label="Reading", file=sys.stderr) as bar:
        return summarise(dataset, survey(dataset, bar.update))


def _write(dataset: Dataset, data: bytes, file: Path | None) -> str:
    """Write the page, and return where."""
    place = f"{str(dataset.store).rstrip('/')}/{PAGE}" if file is None else str(file)
    try:
        if file is None:
            dataset.store.write(PAGE, data)
        else:
            write_together(file.parent, {file.name: data})
    except OSError as error:
        raise BatchError(f"{place} cannot be written ({error.strerror or error}). Name another place: --page FILE.") from None
    return place


def _said(summary: Summary) -> str:
    from camrt.scale.report import cautions, headline

    return "\n".join(printable(line) for line in [headline(summary), *cautions(summary)])
