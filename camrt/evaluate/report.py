"""Write a report: one page, and the same as JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from camrt.errors import ParameterError
from camrt.evaluate import drawing
from camrt.evaluate.page import page
from camrt.evaluate.summary import Summary
from camrt.evaluate.tables import methods_csv, photos_csv, to_json
from camrt.files import write_together
from camrt.metrics.optional import scipy

PAGE = "report.html"
NEED_SCIPY = {"road": "ROAD", "stability": "Stability", "seeds": "Agreement of seeds", "randomisation": "Randomised weights"}


def check_installed(groups: Collection[str]) -> None:
    """Import what the report and groups of figures need, before hours go into measuring.

    Raises
    ------
    MethodUnavailable
        Matplotlib, or SciPy where it is needed, is not installed.
    """
    drawing.check_installed()
    for group, metric in NEED_SCIPY.items():
        if group in groups:
            scipy("stats", metric)


def write_report(summary: Summary, folder: Path) -> Path:
    """Write report.html, report.json, methods.csv and photos.csv, together or not at all, and return the page's path.

    Raises
    ------
    ParameterError
        The folder cannot be written to.
    MethodUnavailable
        Matplotlib is not installed.
    """
    contents = {
        PAGE: page(summary).encode(errors="replace"),
        "report.json": (json.dumps(to_json(summary), indent=1) + "\n").encode(),
        "methods.csv": methods_csv(summary),
        "photos.csv": photos_csv(summary),
    }
    try:
        write_together(folder, contents)
    except OSError as error:
        raise ParameterError(
            f"{folder}: the report cannot be written ({error.strerror or error}); nothing was changed."
        ) from None
    return folder / PAGE
