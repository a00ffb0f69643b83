"""Matplotlib's figures as SVG that goes into a page: small, the same every time, in the page's own colours and letters."""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from camrt.errors import MethodUnavailable
from camrt.markup import Html, escaped

# Colours that stand for the page's: its style sheet gives each for light and for dark.
INK, FAINT, GOOD, BAD = "#000001", "#000002", "#000003", "#000004"
SERIES = tuple(f"#0001{i:02x}" for i in range(8))
PAGE = {INK: "currentColor", FAINT: "var(--faint)", GOOD: "var(--better)", BAD: "var(--worse)"} | {
    color: f"var(--series-{i})" for i, color in enumerate(SERIES)
}
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5))
CONTROL_DASHES = ((1.0, 2.0), (4.0, 3.0))
MARKERS = "osD^vPX*"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "camrt", "font.size": 9.0, "axes.titlesize": 10.5, "axes.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "axes.titlecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6,
}  # fmt: skip


def check_installed() -> None:
    """Import what draws the plots.

    Raises
    ------
    MethodUnavailable
        Matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MethodUnavailable(f"The report's plots need Matplotlib ({error}): pip install matplotlib.") from None


def series(index: int) -> dict[str, Any]:
    """Return how the method of this place among the variants is drawn, in every plot."""
    return {"color": SERIES[index % len(SERIES)], "dashes": DASHES[index // len(SERIES) % len(DASHES)]}


def marker(index: int) -> str:
    """Return the shape of a method's point; one that shares its colour with another has another shape."""
    return MARKERS[(index + index // len(MARKERS)) % len(MARKERS)]


@contextmanager
def axes(width: float, height: float) -> Iterator[Any]:
    """Yield a figure's axes in the page's style; width and height are inches of 72 CSS pixels."""
    check_installed()
    style, figures = (importlib.import_module(f"matplotlib.{name}") for name in ("style", "figure"))
    with style.context(["default", STYLE]):  # whatever the user's own settings are
        yield figures.Figure((width, height), layout="constrained").add_subplot()


def svg(drawn: Any, name: str, told: str) -> Html:
    """Return axes as an SVG element.

    Parameters
    ----------
    drawn : Axes
        Within `axes`.
    name : str
        Goes before every id, so that plots of one page do not take each other's.
    told : str
        What the picture shows, for those who do not see it.
    """
    data = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    drawn.figure.savefig(data, format="svg", transparent=True, metadata=nothing)
    text = data.getvalue().decode()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"#0000\d\d|#0001\d\d", lambda match: PAGE.get(match[0], match[0]), text)
    text = re.sub(r"font: ([^;\"]*?)([\d.]+px) [^;\"]*", r"font: \1\2 system-ui, sans-serif", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r' (?:xmlns(?::xlink)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    return Html(text.replace("<svg", f'<svg role="img" aria-label="{escaped(told)}"', 1))
