"""The rows that are worth a look, as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from camrt.markup import Html, joined, plain, tag, words
from camrt.picture import picture
from camrt.scale.report.dataset import RowPlace
from camrt.scale.report.pictures import alone, over_photo, tile
from camrt.scale.report.summary import MOST_SUSPECTS, Summary
from camrt.scale.report.suspicion import ClassFigures
from camrt.scale.report.tables import facts
from camrt.scale.schema import OK

LONG = 60  # characters of an id; of a longer one the end is shown
WITHOUT = "Heatmap, without the photo, of"


class Gallery:
    """Pictures of a summary's rows, each drawn once.

    Parameters
    ----------
    summary : Summary
    photos : bool
        Read the photos.

    Attributes
    ----------
    missing : int
        How many photos could not be read so far.
    """

    def __init__(self, summary: Summary, photos: bool):
        self._summary, self._photos = summary, photos
        self._drawn: dict[RowPlace, Html] = {}
        self.missing = 0

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
        drawn = picture(tile(one.heatmap), f"Mean heatmap of {one.label}")
        mean = _figure(drawn, tag("b", "mean heatmap"), [f"of {one.maps:,}"])
        title = tag("h3", one.label, " ", tag("small", f"class {one.index}"))
        rows = [self._row(place) for place in one.places if place in self._summary.rows]
        return tag("section", title, known, *_tiles([mean, *rows]), class_="suspect")

    def least_probable(self) -> list[Html]:
        """Return the rows of the lowest probabilities."""
        places = [place for _, place in self._summary.survey.least_probable]
        return _tiles([self._row(place) for place in places if place in self._summary.rows])

    def strangest(self) -> list[Html]:
        """Return the rows whose maps agree less with their class than its maps do with one another."""
        agreeing = {one.index: one.agreement or 0.0 for one in self._summary.classes}
        tiles = []
        for excess, place in self._summary.survey.strangest:
            if place in self._summary.rows:
                of_class = agreeing.get(self._summary.rows[place]["target"], 0.0)
                said = f"agrees at {plain(excess + of_class, 2)}, its class at {plain(of_class, 2)}"
                tiles.append(self._row(place, [said]))
        return _tiles(tiles)

    def _row(self, place: RowPlace, said: Sequence[str] = ()) -> Html:
        row = self._summary.rows[place]
        if place not in self._drawn:
            self._drawn[place] = self._draw(row)
        name, label = str(row["id"]), row["label"] or f"class {row['target']}"
        lines = [label, "" if row["probability"] is None else f"p = {row['probability']:.3f}", *said]
        lines += [] if row["outcome"] == OK else [f"no heatmap: {words(str(row['outcome']))}"]
        short = name if len(name) <= LONG else f"…{name[-LONG:]}"
        return _figure(self._drawn[place], tag("b", short, title=name), lines)

    def _draw(self, row: Mapping[str, Any]) -> Html:
        if not self._photos:
            return picture(alone(row), f"{WITHOUT} {row['id']}", "The photo was not asked for.")
        drawn = over_photo(row)
        self.missing += drawn.missing is not None
        what = "Heatmap over" if drawn.missing is None else WITHOUT
        return picture(drawn.pixels, f"{what} {row['id']}", drawn.missing)


def _figure(drawn: Html, name: Html, lines: Iterable[str]) -> Html:
    return tag("figure", drawn, tag("figcaption", name, *(joined(tag("br"), line) for line in lines if line)))


def _tiles(tiles: Sequence[Html]) -> list[Html]:
    return [tag("div", *tiles, class_="tiles")] if tiles else []
