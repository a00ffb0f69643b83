"""The rows that are worth a look, as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from camrt.markup import Html, joined, plain, tag, words
from camrt.scale.report.dataset import Place
from camrt.scale.report.pictures import colours, image, picture
from camrt.scale.report.summary import MOST_SUSPECTS, Summary
from camrt.scale.report.suspicion import ClassFigures
from camrt.scale.report.tables import facts

LONG = 60  # characters of an id; of a longer one the end is shown


class Gallery:
    """Pictures of a summary's rows, each drawn once.

    Parameters
    ----------
    summary : Summary
    photos : bool
        Read the photos.
    """

    def __init__(self, summary: Summary, photos: bool):
        self._summary, self._photos = summary, photos
        self._drawn: dict[Place, Html] = {}
        self._missing = 0

    @property
    def missing(self) -> int:
        """Return how many photos could not be read so far."""
        return self._missing

    def suspects(self) -> list[Html]:
        """Return the suspicious classes, each with its mean heatmap and some of its photos."""
        shown = self._summary.suspects[:MOST_SUSPECTS]
        left = len(self._summary.suspects) - len(shown)
        more = [tag("p", f"{left:,} more are in the table of classes.")] if left else []
        return [*(self._suspect(one) for one in shown), *more]

    def _suspect(self, one: ClassFigures) -> Html:
        assert one.heatmap is not None
        assert one.agreement is not None
        assert one.others is not None
        known = facts([
            ("photos", f"{one.photos:,}"), ("agreement", plain(one.agreement, 2)), ("with other classes", plain(one.others, 2)),
            ("peak", one.peak and f"{one.peak.words}, {100 * one.peak.distance:.0f} % of the way from the centre to a corner"),
        ])  # fmt: skip
        mean = figure(colours(one.heatmap), f"Mean heatmap of {one.label}", tag("b", "mean heatmap"), [f"of {one.maps:,}"])
        tiles = [mean, *(self._row(place, lambda row: []) for place in one.places if place in self._summary.rows)]
        title = tag("h3", one.label, " ", tag("small", f"class {one.index}"))
        return tag("section", title, known, _tiles(tiles), class_="suspect")

    def least_probable(self) -> list[Html]:
        """Return the rows of the lowest probabilities."""
        return self._shown(self._summary.survey.least_probable, lambda value, row: [])

    def strangest(self) -> list[Html]:
        """Return the rows whose maps agree less with their class than its maps do with one another."""
        agreeing = {one.index: one.agreement or 0.0 for one in self._summary.classes}

        def told(value: float, row: Mapping[str, Any]) -> list[str]:
            of_class = agreeing.get(row["target"], 0.0)
            return [f"agrees at {plain(value + of_class, 2)}, its class at {plain(of_class, 2)}"]

        return self._shown(self._summary.survey.strangest, told)

    def _shown(self, least: Iterable[tuple[float, Place]], told: Any) -> list[Html]:
        rows = self._summary.rows
        tiles = [self._row(place, lambda row, value=value: told(value, row)) for value, place in least if place in rows]
        return [_tiles(tiles)] if tiles else []

    def _row(self, place: Place, told: Any) -> Html:
        row = self._summary.rows[place]
        if place not in self._drawn:
            self._drawn[place] = self._draw(row)
        name, label = str(row["id"]), row["label"] or f"class {row['target']}"
        said = [label, "" if row["probability"] is None else f"p = {row['probability']:.3f}", *told(row)]
        said += [] if row["outcome"] == "ok" else [f"no heatmap: {words(str(row['outcome']))}"]
        short = name if len(name) <= LONG else f"…{name[-LONG:]}"
        return tag("figure", self._drawn[place], tag("figcaption", tag("b", short, title=name), *_lines(said)))

    def _draw(self, row: Mapping[str, Any]) -> Html:
        drawn = picture(row, self._photos)
        self._missing += drawn.missing is not None
        what = "Heatmap over" if drawn.missing is None else "Heatmap, without the photo, of"
        return image(drawn.pixels, f"{what} {row['id']}", drawn.missing)


def figure(pixels: np.ndarray, told: str, name: Html, said: Iterable[str]) -> Html:
    """Return a picture with its caption."""
    return tag("figure", image(pixels, told), tag("figcaption", name, *_lines(said)))


def _lines(said: Iterable[str]) -> list[Html]:
    return [joined(tag("br"), line) for line in said if line]


def _tiles(tiles: Iterable[Html]) -> Html:
    return tag("div", *tiles, class_="tiles")
