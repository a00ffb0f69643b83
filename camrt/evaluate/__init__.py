"""Measure methods on a model and photos of one's own: which to trust, and what it costs."""

from camrt.evaluate.annotations import describe
from camrt.evaluate.evaluation import Evaluation
from camrt.evaluate.measures import Asked
from camrt.evaluate.metric import DEFAULT_GROUPS, GROUPS, METRICS
from camrt.evaluate.photos import find_photos
from camrt.evaluate.report import check_installed, write_report
from camrt.evaluate.subject import Subject
from camrt.evaluate.summary import Summary, summarise
from camrt.evaluate.variant import Variant, read_variants

__all__ = [
    "DEFAULT_GROUPS",
    "GROUPS",
    "METRICS",
    "Asked",
    "Evaluation",
    "Subject",
    "Summary",
    "Variant",
    "check_installed",
    "describe",
    "find_photos",
    "read_variants",
    "summarise",
    "write_report",
]
