"""A model: one bundle, whether it can answer now, and its groups of images explained together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from camrt.answer import answer, predict
from camrt.errors import MethodUnavailable, ParameterError
from camrt.explainer import DEFAULT_METHOD, Explainer
from camrt.manifest import Manifest
from camrt.photo import Photo
from camrt.question import read_question
from camrt.server.errors import Refusal
from camrt.stream import OF_ONE_IMAGE, apart
from camrt.turns import Stopped, Turns

if TYPE_CHECKING:
    from camrt.server.work import Work

log = logging.getLogger("camrt.server")

OF_USER = (ParameterError, MethodUnavailable)  # what only shows on features, and is no failure of the model


class State(StrEnum):
    """Whether a model can answer."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILING = "failing"  # its graphs failed when they were last run


@dataclass(frozen=True)
class Loaded:
    """A model as it was when a request was accepted, which may use it to the end, unloaded or exchanged since or not.

    Attributes
    ----------
    model : Model
    explainer : Explainer
    """

    model: Model
    explainer: Explainer

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def manifest(self) -> Manifest:
        return self.explainer.manifest


class Model:
    """A bundle that is served.

    Parameters
    ----------
    name : str
        How requests name it.
    open : callable
        → its Explainer.
    device : Semaphore
        Held while the network computes, by all models together.

    Attributes
    ----------
    state : State
    """

    def __init__(self, name: str, open: Callable[[], Explainer], device: threading.Semaphore):
        self.name, self._open, self._device = name, open, device
        self.state = State.UNLOADED
        self._explainer: Explainer | None = None
        self._changing = threading.Lock()  # held while it is loaded or unloaded

    def take(self) -> Loaded:
        """Return what is loaded now.

        Raises
        ------
        Refusal
            503: it is not loaded.
        """
        explainer = self._explainer
        if explainer is None:
            raise Refusal(503, f"The model {self.name!r} cannot answer: {self.state}.", {"Retry-After": "5"})
        return Loaded(self, explainer)

    def load(self) -> None:
        """Open the bundle, unless it is open, and run it in every size of batch, so that no request waits for that.

        Raises
        ------
        CamrtError
            It cannot be opened or does not run.
        """
        with self._changing:
            if self.state is State.READY:
                return
            self.state = State.LOADING
            try:
                explainer = self._explainer or self._open()
                self._probe(explainer, range(1, explainer.together + 1))
            except BaseException:
                self.state, self._explainer = State.UNLOADED, None
                raise
            self._explainer, self.state = explainer, State.READY

    def unload(self) -> None:
        """Let go of the bundle; work that was accepted is done."""
        with self._changing:
            self.state, self._explainer = State.UNLOADED, None

    def probe(self) -> None:
        """Explain noise, and be ready if that goes well."""
        self._probe(self.take().explainer, [1])
        self._went_well()

    def _probe(self, explainer: Explainer, sizes: Sequence[int]) -> None:
        """Explain noise by the default method."""
        size = explainer.manifest.preprocess.size
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        image, question = explainer.prepare(Photo(noise)), read_question(explainer.manifest, DEFAULT_METHOD, {})
        for count in sizes:
            answer(explainer.engine, [question] * count, [image] * count, Turns(self._device))

    def answers(self, group: Sequence[Work]) -> list[Any]:
        """Return, for each work of a group of alike ones, its answer or the error that it met; runs in a worker's thread."""
        explainer, question = group[0].loaded.explainer, group[0].question
        turns = Turns(self._device, lambda: any(work.wanted for work in group))
        started = time.perf_counter()

        def answered(works: list[Work]) -> Sequence[Any]:
            images = [work.image.after(queue=(started - work.arrived) * 1e3) for work in works]
            if question is None:
                return list(predict(explainer.engine, images, turns))
            return answer(explainer.engine, [work.question for work in works if work.question], images, turns)

        try:
            found = apart(answered, list(group))
        except Stopped:
            return [None] * len(group)  # nobody is there to read it
        except OF_USER as error:
            return [error] * len(group)
        except Exception as error:
            self._failed(error)
            return [error] * len(group)
        if not all(isinstance(one, OF_ONE_IMAGE) for one in found):
            self._went_well()
        return found

    def _went_well(self) -> None:
        if self.state is State.FAILING:
            self.state = State.READY

    def _failed(self, error: Exception) -> None:
        log.error("model_failed", extra={"model": self.name}, exc_info=error)
        if self.state is State.READY:
            self.state = State.FAILING
