"""The models of a server, by name: which there are, which can answer, loading and unloading them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

from camrt.errors import did_you_mean
from camrt.server.errors import Refusal
from camrt.server.model import Loaded, Model, State

log = logging.getLogger("camrt.server")
PROBE_EVERY = 5.0  # seconds between two looks whether a failing model runs again


class Models:
    """The models of a server.

    Parameters
    ----------
    models : iterable of Model
        The first is that of requests which name none.
    """

    def __init__(self, models: Iterable[Model]):
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    @property
    def ready(self) -> bool:
        """Whether every model that is to answer can: one that was unloaded is not to."""
        states = {model.state for model in self._models.values()}
        return State.READY in states and states <= {State.READY, State.UNLOADED}

    def named(self, name: str | None) -> Model:
        """Return a model by name, loaded or not; without a name the first.

        Raises
        ------
        Refusal
            404: there is none of that name.
        """
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            near, known = did_you_mean(name[:200], self._models), ", ".join(self._models)
            raise Refusal(404, f"There is no model {name[:200]!r}.{near} Known: {known}.")
        return self._models[name]

    def answering(self, name: str | None) -> Loaded:
        """Return a model as it is loaded now.

        Raises
        ------
        Refusal
            404: there is none of that name; 503: it is not loaded.
        """
        return self.named(name).take()

    async def load(self, model: Model) -> None:
        """Load a model, or wait until somebody else has."""
        await asyncio.to_thread(model.load)
        log.info("model_loaded", extra={"model": model.name})

    async def unload(self, model: Model) -> None:
        """Unload a model."""
        await asyncio.to_thread(model.unload)
        log.info("model_unloaded", extra={"model": model.name})

    async def revive(self) -> None:
        """Look now and then whether models that failed run again; never ends."""
        while True:
            await asyncio.sleep(PROBE_EVERY)
            for model in self._models.values():
                if model.state is State.FAILING:
                    try:
                        await asyncio.to_thread(model.probe)
                        log.info("model_revived", extra={"model": model.name})
                    except Exception as error:  # whatever made it fail
                        log.warning("model_still_failing", extra={"model": model.name}, exc_info=error)
