"""The answer to questions about a group of images: x → features → maps → outcomes → explanations, with what they took."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from camrt.case import Case, probabilities
from camrt.engine import Engine
from camrt.explanation import Category, Explanation, Run, Target
from camrt.heatmap import Outcome, outcomes
from camrt.image import Geometry, preprocess_photo
from camrt.methods import GRADIENTS, Method
from camrt.photo import ImageSource, Photo, load_photo
from camrt.preprocess import Preprocess
from camrt.question import Question
from camrt.runtime import versions
from camrt.turns import Turns


@dataclass(frozen=True)
class Prepared:
    """An image on its way: the photo, the network's input (3, H, W), where that lies on the photo, milliseconds so far."""

    photo: Photo
    x: np.ndarray
    where: Geometry
    timings: Mapping[str, float]

    def after(self, **timings: float) -> Prepared:
        """Return the same image, on which more milliseconds were spent."""
        return replace(self, timings={**self.timings, **timings})


def prepare(image: ImageSource, preprocess: Preprocess, max_pixels: int) -> Prepared:
    """Decode an image and bring it into the form in which the network takes it."""
    started = time.perf_counter()
    photo = load_photo(image, max_pixels)
    decoded = time.perf_counter()
    x, where = preprocess_photo(photo.pixels, preprocess)
    timings = {"decode": (decoded - started) * 1e3, "preprocess": (time.perf_counter() - decoded) * 1e3}
    return Prepared(photo, x, where, timings)


def answer(
    engine: Engine, questions: Sequence[Question], images: Sequence[Prepared], turns: Turns | None = None
) -> list[Explanation]:
    """Explain a group of images together, each by its own question; the questions must be `alike`."""
    started = time.perf_counter()
    question = questions[0]
    case = Case(engine, np.stack([image.x for image in images]), turns)
    case.targets = np.concatenate([q.targets(z[None]) for q, z in zip(questions, case.logits, strict=True)])
    case.versus = question.versus
    maps, codes = signed_maps(case, question.method, question.settings)
    before = {stage: sum(image.timings[stage] for image in images) for stage in images[0].timings}
    total = sum(before.values()) + (time.perf_counter() - started) * 1e3
    timings = before | case.timings | {"total": total}
    run = Run(
        method=question.method.name,
        parameters=question.settings,
        passes=case.passes,
        tail_passes=case.tail_passes,
        backward_passes=case.backward_passes,
        masked_batch=case.masked_batch,
        timings={stage: ms / len(images) for stage, ms in timings.items()},
        provider=engine.provider,
        versions=versions(),
        bundle=engine.bundle.manifest.name,
        bundle_sha256=engine.bundle.sha256,
        placement=dict(engine.sessions.placements),
    )
    fallback = ("provider_fallback",) * engine.sessions.fell_back
    return [
        Explanation(image.photo, targets, mine, image.where, (*notes, *fallback), run, logits)
        for image, targets, mine, notes, logits in zip(
            images, _described(case, codes), maps, case.notes, case.logits, strict=True
        )
    ]


def predict(engine: Engine, images: Sequence[Prepared], turns: Turns | None = None) -> np.ndarray:
    """Return the logits (N, L) of a group of images, unexplained."""
    return Case(engine, np.stack([image.x for image in images]), turns).logits


def signed_maps(case: Case, method: Method, settings: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the signed maps (N, T, h, w) and outcomes (N, T) of a case whose targets are set."""
    with case.rest("merge"), np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # that becomes an outcome
        asked = case.finite[:, None] & (case.targets != case.versus)  # a class differs from itself in nothing
        signed = np.where(asked[..., None, None], _run(case, method, settings), np.float32(0))
        return signed, outcomes(signed, case.features, case.finite, case.size)


def _run(case: Case, method: Method, settings: Mapping[str, Any]) -> np.ndarray:
    """Run a method; by gradients some targets at a time, as those of a thousand classes would fill the memory."""
    if GRADIENTS not in method.needs:
        return method.run(case, **settings)
    targets = case.targets
    together = max(1, case.engine.max_masked_batch // len(targets))
    parts = []
    for start in range(0, targets.shape[1], together):
        case.targets = targets[:, start : start + together]
        parts.append(method.run(case, **settings))
    case.targets = targets
    return np.concatenate(parts, axis=1)


def _described(case: Case, codes: np.ndarray) -> list[tuple[Target, ...]]:
    """Return the targets of every image, each with its probability and outcome."""
    manifest = case.engine.bundle.manifest
    other = None if case.versus is None else Category(case.versus, manifest.label(case.versus))
    with np.errstate(invalid="ignore", over="ignore"):
        p = np.take_along_axis(probabilities(case.logits, manifest.kind), case.targets, axis=1)
    return [
        tuple(
            Target(int(index), manifest.label(int(index)), float(probability), Outcome(int(code)), other)
            for index, probability, code in zip(*rows, strict=True)
        )
        for rows in zip(case.targets, p, codes, strict=True)
    ]
