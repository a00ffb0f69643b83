"""An explanation, written in the form that a client asked for."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi.responses import JSONResponse, Response

from camrt.case import probabilities
from camrt.explanation import Explanation
from camrt.server.model import Loaded
from camrt.server.pictures import NONE, Look, check_area, npy, pictures, shrunk
from camrt.server.v1.media import JSON, NPY
from camrt.server.v1.schema import Answer

NAMED = 5  # classes of a prediction


@dataclass(frozen=True)
class Written:
    """An answer on its way: what goes out, beside what is told of it, and the milliseconds that it took to draw."""

    explanation: Explanation
    media: str
    drawn: list[bytes]
    render: float


def answer_bytes(media: str, kind: str, targets: int, look: Look, size: tuple[int, int]) -> int:
    """Return how many bytes an answer about a photo of this size may take, at the most, while it is drawn and sent."""
    ratio = min(1.0, (look.longest or max(size)) / max(size))
    pixels = round(size[0] * ratio) * round(size[1] * ratio) * targets
    return 0 if media == JSON and kind == NONE else 8 * pixels


def write(explanation: Explanation, media: str, kind: str, look: Look, most: int) -> Written:
    """Draw what a client asked for.

    Parameters
    ----------
    explanation : Explanation
    media : str
        The form of the answer.
    kind : {"overlay", "heatmap", "none"}
        What pictures show.
    look : Look
    most : int
        Pixels of all pictures together.

    Raises
    ------
    Refusal
        422: they have more.
    """
    started = time.perf_counter()
    small = shrunk(explanation, look.longest)
    if media == NPY or kind != NONE:
        check_area([small], most)
    drawn: list[bytes] = []
    if media == NPY:
        drawn = [npy(small.heatmap)]
    elif kind != NONE:
        drawn = pictures(small, kind, look)
    return Written(explanation, media, drawn, (time.perf_counter() - started) * 1e3)


def response(written: Written, loaded: Loaded, photo: str | None) -> Response:
    """Return the answer; `photo` is the name by which the photo is kept."""
    if written.media != JSON:
        return Response(written.drawn[0], media_type=written.media, headers=_headers(written.explanation))
    told = written.explanation.to_json()
    for i, target in enumerate(told["targets"]):
        target["picture"] = base64.b64encode(written.drawn[i]).decode() if written.drawn else None
    told["milliseconds"]["render"] = round(written.render, 3)
    known = {name: value for name, value in told.items() if name in Answer.model_fields}  # not where the bundle lies
    prediction = _prediction(loaded, written.explanation)
    return JSONResponse(known | {"model": loaded.name, "photo": photo, "prediction": prediction})


def _prediction(loaded: Loaded, explanation: Explanation) -> list[dict[str, Any]]:
    manifest, logits = loaded.manifest, explanation.logits
    with np.errstate(invalid="ignore", over="ignore"):
        p = probabilities(logits, manifest.kind)
    best = np.argsort(-logits, kind="stable")[:NAMED]
    return [
        {"index": int(i), "label": manifest.label(int(i)), "probability": float(p[i]) if np.isfinite(p[i]) else None}
        for i in best
    ]


def _headers(explanation: Explanation) -> dict[str, str]:
    """Return what a picture or an array cannot say itself."""
    targets = ", ".join(f"{t.index}={t.probability:.6g} {t.outcome.word}" for t in explanation.targets)
    return {"X-Camrt-Targets": targets, "X-Camrt-Method": explanation.run.method, "X-Camrt-Passes": str(explanation.run.passes)}
