"""How the rows came out, and what was said of those without a heatmap, alike ones together."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from camrt.scale.schema import OK

COLUMNS = ("id", "source", "outcome", "error")
NAMED = 20  # photos of a group that are named
GROUPS = 50  # that are told apart; the rest is counted together
OTHERS = "other messages"


@dataclass
class Group:
    """Rows without a heatmap of which the same was said.

    Attributes
    ----------
    outcome, message : str
        The message as it was said of the first, without its path.
    count : int
    named : list of str
        The first ids.
    """

    outcome: str
    message: str
    count: int = 0
    named: list[str] = field(default_factory=list)


class Outcomes:
    """Counts of rows by outcome, and groups of those without a heatmap."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._groups: dict[tuple[str, str], Group] = {}

    @property
    def groups(self) -> list[Group]:
        """Return the groups by falling size."""
        return sorted(self._groups.values(), key=lambda group: -group.count)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows with the columns `COLUMNS`."""
        for pair in pc.value_counts(batch.column("outcome")).to_pylist():
            self.counts[str(pair["values"])] += pair["counts"]
        failing = batch.select(list(COLUMNS)).filter(pc.fill_null(pc.not_equal(batch.column("outcome"), OK), True))
        for name, source, outcome, error in zip(*(column.to_pylist() for column in failing.columns), strict=True):
            self._add(str(name), source or "", str(outcome), error or "")

    def _add(self, name: str, source: str, outcome: str, error: str) -> None:
        message = error.removeprefix(f"{source}: ").replace(source, "…") if source else error
        key = outcome, re.sub(r"\d+", "0", message)
        if key not in self._groups and len(self._groups) >= GROUPS:
            key, message = (outcome, OTHERS), OTHERS
        group = self._groups.setdefault(key, Group(outcome, message))
        group.count += 1
        if len(group.named) < NAMED and name not in group.named[-1:]:
            group.named.append(name)
