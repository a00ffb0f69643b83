"""What an explanation costs over its floor: one method's calls, and those of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from camrt.explanation import Explanation
from camrt.floor import Floor, Spread


@dataclass(frozen=True)
class Cost:
    """What one method costs.

    Attributes
    ----------
    method : str
    parameters : dict
    passes, tail_passes, backward_passes, masked_batch : int
        As in `camrt.explanation.Run`.
    explain : Spread
        Milliseconds of `explain` on a decoded photo at network size.
    floor : Spread
        Milliseconds of its bare passes.
    ratio : Spread
        Over the floor of the same round.
    stages : dict of str to Spread
        Milliseconds of its parts.
    """

    method: str
    parameters: dict[str, Any]
    passes: int
    tail_passes: int
    backward_passes: int
    masked_batch: int
    explain: Spread
    floor: Spread
    ratio: Spread
    stages: dict[str, Spread]

    @classmethod
    def of(cls, floor: Floor, times: Sequence[float], explanations: Sequence[Explanation]) -> Cost:
        """Return it from the milliseconds of the rounds and what they gave."""
        run = explanations[0].run
        floors = floor.of_explanation(run.passes - 1)
        return cls(
            method=run.method,
            parameters=dict(run.parameters),
            passes=run.passes,
            tail_passes=run.tail_passes,
            backward_passes=run.backward_passes,
            masked_batch=run.masked_batch,
            explain=Spread.of(times),
            floor=Spread.of(floors),
            ratio=Spread.of_ratios(times, floors),
            stages={stage: Spread.of([e.run.timings[stage] for e in explanations]) for stage in run.timings},
        )


@dataclass(frozen=True)
class Streamed:
    """What a stream of decoded photos costs by the first method.

    Attributes
    ----------
    images : int
        In a round.
    per_second : Spread
    ratio : Spread
        Time over that of as many bare passes in the best batch size.
    """

    images: int
    per_second: Spread
    ratio: Spread

    @classmethod
    def of(cls, floor: Floor, times: Sequence[float], images: int, passes: int) -> Streamed:
        """Return it from the milliseconds of the rounds and the passes of one image."""
        per_second = Spread.of([images / ms * 1e3 for ms in times])
        return cls(images, per_second, Spread.of_ratios(times, floor.of_stream(images * passes)))
