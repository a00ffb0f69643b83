"""Work: one image and what is asked about it, on its way through the line."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from camrt.answer import Prepared
from camrt.question import Question
from camrt.server.model import Loaded


@dataclass(eq=False)
class Work:
    """One image, what is asked about it, and where the answer goes.

    Attributes
    ----------
    loaded : Loaded
        The model when the work was accepted.
    question : Question or None
        None where only the logits are asked for.
    image : Prepared
    answer : Future
        Of an Explanation, or of logits (L,).
    arrived : float
        When, by `time.perf_counter`.
    """

    loaded: Loaded
    question: Question | None
    image: Prepared
    answer: asyncio.Future[Any]
    arrived: float = field(default_factory=time.perf_counter)

    @property
    def alike(self) -> tuple[Any, ...]:
        """What work has in common that can share a batch."""
        return id(self.loaded.explainer), self.question and self.question.alike

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self.answer.done()
