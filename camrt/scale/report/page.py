"""The report as one page that needs nothing beside it: what was found, suspicious classes, figures, photos to look at."""

from __future__ import annotations

from pathlib import Path

from camrt.document import document, sections
from camrt.markup import Html, joined, tag
from camrt.picture import picture
from camrt.scale.report import tables
from camrt.scale.report.finding import cautions, headline
from camrt.scale.report.gallery import Gallery
from camrt.scale.report.meaning import meaning
from camrt.scale.report.pictures import tile
from camrt.scale.report.summary import Summary


def page(summary: Summary, *, photos: bool = True) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    summary : Summary
    photos : bool, default True
        Show heatmaps over their photos, where these can be read.
    """
    gallery = Gallery(summary, photos)
    content = sections({
        "suspicious": ("Suspicious classes", _told(gallery.suspects(), SUSPICIOUS)),
        "outcomes": ("Outcomes", tables.outcomes(summary)),
        "probabilities": ("Probabilities", _told(tables.histogram(summary), _probabilities(summary))),
        "classes": ("Classes", tables.classes(summary)),
        "unsure": ("The least probable", _told(gallery.least_probable(), _unsure(summary))),
        "strange": ("The strangest heatmaps", _told(gallery.strangest(), STRANGE)),
        "meaning": ("What the figures mean", meaning(summary)),
    })  # fmt: skip
    style = Path(__file__).with_name("report.css").read_text("utf-8")
    return document(f"camrt report: {summary.dataset.bundle}", style, joined(_header(summary, gallery.missing), content))


SUSPICIOUS = (
    "Does the subject lie where the heatmap does? If it does, in every photo, the class is only framed alike. If not, the "
    "model may have learned what always lies there instead: a watermark, a logo, a border, a date, a background."
)
STRANGE = (
    "Photos whose heatmap lies elsewhere than those of their class, by how much less it agrees with them than they with one "
    "another. Wrong classes, several subjects and other backgrounds are among them; so are photos without the shortcut. Where "
    "its class agrees little, heatmaps follow the subject, and one is hardly stranger than another."
)


def _told(content: list[Html], said: str) -> list[Html]:
    return [tag("p", said), *content] if content else []


def _probabilities(summary: Summary) -> str:
    if summary.dataset.by_name:
        return "How many photos have which probability of a class that was asked for."
    return "How many photos have which probability of the class that the model names."


def _unsure(summary: Summary) -> str:
    if summary.dataset.by_name:
        return "Photos in which a class that was asked for is least probable."
    return "Photos of whose class the model is least sure. Where the photo can be read, the heatmap lies over it."


def _header(summary: Summary, missing: int) -> Html:
    dataset, manifest = summary.dataset, summary.dataset.manifest
    unread = f"{missing:,} of the photos to be shown could not be read: only their heatmaps are, in the network's window."
    found = [*cautions(summary), *([unread] if missing else [])]
    facts = tables.facts([
        ("bundle", dataset.bundle), ("method", manifest.asked.get("method", "unknown")),
        ("against class", manifest.asked.get("versus")), ("photos", f"{manifest.photos:,}"), ("rows", f"{manifest.rows:,}"),
        ("classes", f"{len(summary.classes):,}"), ("begun", dataset.begun), ("state", manifest.state),
    ])  # fmt: skip
    finding = tag("p", headline(summary), class_="finding")
    told = tag("div", finding, *(tag("p", text, class_="caution") for text in found), facts)
    return tag("header", tag("h1", f"Where {dataset.bundle} looks"), tag("div", told, _mean(summary), class_="beside"))


def _mean(summary: Summary) -> Html | str:
    if summary.heatmap is None:
        return ""
    said = tag("figcaption", "Mean heatmap of all photos, in the network's window")
    return tag("figure", picture(tile(summary.heatmap), "Mean heatmap of all photos"), said)
