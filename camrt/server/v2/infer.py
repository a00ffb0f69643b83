"""From a request to its answer: read, prepared, explained or only predicted, written."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from camrt.answer import Prepared
from camrt.explanation import Explanation
from camrt.manifest import Manifest
from camrt.question import Question
from camrt.server.body import read_body
from camrt.server.model import Loaded
from camrt.server.patience import unless_gone, within
from camrt.server.service import Service
from camrt.server.told import facts
from camrt.server.v2.answer import written
from camrt.server.v2.asked import read_asked
from camrt.server.v2.inference import HEADER, Inference, read_inference
from camrt.server.v2.inputs import read_sources
from camrt.server.v2.outputs import OUTPUTS, Found, check_heatmaps
from camrt.server.v2.parts import Scalar
from camrt.server.v2.tensors import MOST_IN_JSON


async def infer(service: Service, request: Request, loaded: Loaded) -> Response:
    """Return the answer to a request about a model that is loaded."""
    started = asyncio.get_running_loop().time()
    options, manifest = service.options, loaded.manifest
    async with read_body(request, options, service.uploads) as body:
        inference = await service.in_hands(read_inference, body, request.headers.get(HEADER))
        asked = read_asked(inference.parameters, manifest, options.max_targets)
        question = service.question(loaded, asked.method, asked.settings, **asked.classes)
        async with within(asked.timeout, started):
            sources = await service.in_hands(read_sources, inference.tensor, manifest, options)
            _check_size(inference, question, manifest, options.max_pixels)
            images = await request.state.held.enter_async_context(
                service.prepared(loaded, sources, lambda h, w: _answer_bytes(inference, question, manifest, (h, w)))
            )
            explained = any(OUTPUTS[wanted.name].explained for wanted in inference.outputs)
            seen = await unless_gone(request, _seen(service, loaded, question, images, explained))
            found = Found(manifest, question, *seen, asked.look, options.max_pixels)
            return await _answered(service, request, loaded, inference, found)


def _check_size(inference: Inference, question: Question, manifest: Manifest, most: int) -> None:
    """Refuse, before anything is computed, heatmaps that are too large for the answer."""
    for wanted in inference.outputs:
        if wanted.name == "heatmap":
            check_heatmaps(
                manifest, inference.tensor.shape[0], question.count, most if wanted.binary else min(most, MOST_IN_JSON)
            )


def _answer_bytes(inference: Inference, question: Question, manifest: Manifest, size: tuple[int, int]) -> int:
    """Return how many bytes an answer about an image may take, at the most: 8 a pixel of its heatmaps and overlays."""
    asked = {wanted.name for wanted in inference.outputs}
    pixels = math.prod(manifest.size) * ("heatmap" in asked) + math.prod(size) * ("overlay" in asked)
    return 8 * pixels * question.count


async def _seen(
    service: Service, loaded: Loaded, question: Question, images: Sequence[Prepared], explained: bool
) -> tuple[np.ndarray, Sequence[Explanation]]:
    """Return the logits of images and, where they are needed, the explanations."""
    if not explained:
        return await service.predict(loaded, images), ()
    explanations = await service.explain(loaded, [question] * len(images), images)
    return np.stack([one.logits for one in explanations]), explanations


async def _answered(service: Service, request: Request, loaded: Loaded, inference: Inference, found: Found) -> Response:
    """Write the answer, count what was explained, and tell the log."""
    started = time.perf_counter()
    answer = await service.in_hands(written, loaded.name, inference, found, _told(found))
    spent = (time.perf_counter() - started) * 1e3
    for explanation in found.explanations:
        service.counters.explained(loaded.name, explanation, {"render": spent / len(found.explanations)})
    if found.explanations:
        request.state.facts = facts(loaded, found.explanations)
    else:
        request.state.facts = {"model": loaded.name, "images": len(found.logits)}
    return answer


def _told(found: Found) -> dict[str, Scalar]:
    """Return what really ran, of an image."""
    if not found.explanations:
        return {"passes": 1}
    run = found.explanations[0].run
    notes = sorted({note for explanation in found.explanations for note in explanation.notes})
    return {"method": run.method, "passes": run.passes, "provider": run.provider, "notes": ", ".join(notes)}
