"""Work: one image and what is asked about it, on its way through the line."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camrt.answer import Prepared
from camrt.explainer import Explainer
from camrt.question import Question

if TYPE_CHECKING:
    from camrt.server.model import Model


@dataclass(eq=False)
class Work:
    """One image, what is asked about it, and where the answer goes.

    Attributes
    ----------
    model : Model
    explainer : Explainer
        The model's when the work was accepted.
    question : Question or None
        None where only the logits are asked for.
    image : Prepared
    answer : Future
        Of an Explanation, or of logits (L,).
    arrived : float
        When, by `time.perf_counter`.
    """

    model: Model
    explainer: Explainer
    question: Question | None
    image: Prepared
    answer: asyncio.Future[Any]
    arrived: float = field(default_factory=time.perf_counter)

    @property
    def alike(self) -> tuple[Any, ...]:
        """What work has in common that can share a batch."""
        return id(self.explainer), self.question and self.question.alike

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self.answer.done()
