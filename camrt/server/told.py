"""What the log tells of what was explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from camrt.explanation import Explanation
from camrt.server.model import Loaded


def facts(loaded: Loaded, explanations: Sequence[Explanation]) -> dict[str, Any]:
    """Return what the log tells of a request's explanations: milliseconds are of all its images together."""
    stages: Counter[str] = Counter()
    for explanation in explanations:
        stages.update(explanation.run.timings)
    return {
        "model": loaded.name,
        "images": len(explanations),
        "explained_by": explanations[0].run.method,
        "outcomes": [target.outcome.word for explanation in explanations for target in explanation.targets],
        "stages": {stage: round(ms, 1) for stage, ms in stages.items()},
    }
