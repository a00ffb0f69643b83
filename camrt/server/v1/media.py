"""The forms of an answer, and which of them a client likes best."""

from __future__ import annotations

from camrt.server.errors import Refusal

JSON, PNG, NPY = "application/json", "image/png", "application/x-npy"
ANY_OF = {JSON: ("application/*", "*/*", ""), PNG: ("image/*",), NPY: ()}  # the best is the first, of equals


def media_type(accept: str) -> str:
    """Return which form of an answer a client likes best, by its header Accept.

    Raises
    ------
    Refusal
        406: it likes none.
    """
    liked: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *rest = (piece.strip() for piece in part.split(";"))
        quality = next((piece[2:] for piece in rest if piece.startswith("q=")), "1")
        try:
            liked[name] = float(quality)
        except ValueError:
            liked[name] = 0.0
    scores = {kind: max(liked.get(name, 0.0) for name in (kind, *wild)) for kind, wild in ANY_OF.items()}
    best = max(scores, key=lambda kind: scores[kind])
    if scores[best] <= 0:
        raise Refusal(406, f"Answers are {JSON}, {PNG} or {NPY}.")
    return best
