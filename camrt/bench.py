"""What an explanation costs over the forward passes that it cannot do without, measured in one process, interleaved.

The floor (`camrt.floor`) is the bare network in one session.  A gradient or a pass of the tail has no bare counterpart; what
it costs shows in the ratio.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from camrt import kmeans
from camrt.cost import Cost, Streamed
from camrt.engine import Engine
from camrt.errors import ParameterError
from camrt.explainer import DEFAULT_METHOD, Explainer
from camrt.explanation import Explanation
from camrt.files import sha256_of
from camrt.floor import Floor, Spread
from camrt.footprint import Footprint, footprint
from camrt.photo import load_photo
from camrt.render import encode_png
from camrt.runtime import versions
from camrt.session import ALWAYS, NEVER, open_session

BATCHES = (1, 4, 5, 8, 16, 32)  # images a call of the floor
MAX_JPEG_SIDE = 65_500  # pixels
REST = 0.1  # seconds for threads that spin after their work, before anything else is measured
WARM_UP = 2  # rounds that are not counted

# By the first method if ONNX Runtime's waiting threads never, or always, span, and if the K-means multiplied whole matrices.
NEVER_SPIN, ALWAYS_SPIN, WHOLE_PRODUCTS = EFFECTS = (
    "if threads never spin", "if threads always spin", "if the K-means multiplies whole matrices"
)  # fmt: skip
BESIDE = ("decode", "heatmap on photo", "overlay", "encode PNG")

Call = Callable[[], Any]


@dataclass(frozen=True)
class Bench:
    """The result of a benchmark; times in milliseconds, memory in MB.

    Attributes
    ----------
    floor_of : str
        The bare network: the source's file, or head → tail.
    floor : dict of int to Spread
        Milliseconds an image, by images a call.
    costs : list of Cost
        One a method.
    stream : Streamed
    effects : dict of str to Spread
        Milliseconds of `explain` by the first method under other settings.
    beside : dict of str to Spread
        What else a user waits for: decoding the photo; the heatmap on it; the overlay, which contains that; encoding it.
    floor_memory, memory : Footprint or None
        Of a process that runs the bare network, and of one that explains with the first method; nothing else is in them.
        None where it could not be measured.
    """

    bundle: str
    provider: str
    versions: dict[str, str]
    runs: int
    threads: int
    floor_of: str
    floor: dict[int, Spread]
    costs: list[Cost]
    stream: Streamed
    effects: dict[str, Spread]
    beside: dict[str, Spread]
    floor_memory: Footprint | None
    memory: Footprint | None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return asdict(self)


def bench(
    explainer: Explainer,
    *,
    source: Path | None = None,
    photo: np.ndarray | None = None,
    runs: int = 10,
    methods: Mapping[str, Mapping[str, Any]] = MappingProxyType({DEFAULT_METHOD: {}}),
    images: int = 32,
    step: Callable[[], None] = lambda: None,
) -> Bench:
    """Measure an explainer.

    Parameters
    ----------
    source : path, optional
        The uncut .onnx model as the floor; without it head → tail, one after the other.
    photo : ndarray of shape (H, W, 3), uint8 RGB, optional
        By default a smooth coloured pattern.
    runs : int
        Rounds that are counted, after two that are not.
    methods : mapping of str to mapping
        Methods and their parameters; the first also explains the stream.
    images : int
        How many are explained as a stream in each round.
    step : callable, optional
        Called after every round.
    """
    if runs < 1 or images < 1 or not methods:
        raise ParameterError(f"runs, images and methods must be at least 1, got {runs}, {images} and {len(methods)}.")
    manifest = explainer.manifest
    full = _pattern() if photo is None else photo
    pixels = cv2.resize(full, manifest.size[::-1], interpolation=cv2.INTER_AREA)
    floor, floor_of = _source_floor(explainer, source) if source else (explainer.engine.forward, "head → tail")
    batch = np.random.default_rng(0).standard_normal((max(BATCHES), *manifest.image.shape[1:]), np.float32)
    first = next(iter(methods))

    def explain(method: str, one: Explainer = explainer) -> Explanation:
        return one.explain(pixels, method=method, **methods[method])

    calls: dict[Any, Call] = {size: partial(floor, batch[:size]) for size in BATCHES}
    calls |= {method: partial(explain, method) for method in methods}
    calls["stream"] = lambda: deque(explainer.explain_many([pixels] * images, method=first, **methods[first]), maxlen=0)
    calls |= _beside(explain(first), full)
    calls[NEVER_SPIN] = partial(explain, first, _spinning(explainer.engine, NEVER))
    calls[ALWAYS_SPIN] = partial(explain, first, _spinning(explainer.engine, ALWAYS))
    calls[WHOLE_PRODUCTS] = partial(_in_whole_products, partial(explain, first))
    times, explanations = _rounds(calls, methods, runs, step)
    bare = Floor({size: times[size] for size in BATCHES})
    costs = [Cost.of(bare, times[method], explanations[method]) for method in methods]
    used = costs[0].parameters
    return Bench(
        bundle=manifest.name,
        provider=explainer.engine.provider,
        versions=versions(),
        runs=runs,
        threads=explainer.engine.sessions.threads,
        floor_of=floor_of,
        floor=bare.an_image(),
        costs=costs,
        stream=Streamed.of(bare, times["stream"], images, costs[0].passes),
        effects={name: Spread.of(times[name]) for name in EFFECTS},
        beside={name: Spread.of(times[name]) for name in BESIDE},
        floor_memory=footprint(explainer, source, first, used, bare=costs[0].masked_batch),
        memory=footprint(explainer, source, first, used, bare=None),
    )


def _rounds(
    calls: dict[Any, Call], kept: Iterable[str], runs: int, step: Callable[[], None]
) -> tuple[dict[Any, list[float]], dict[str, list[Explanation]]]:
    """Return the milliseconds of every call in every counted round, and what those gave that are to be kept."""
    times: dict[Any, list[float]] = {name: [] for name in calls}
    results: dict[str, list[Explanation]] = {name: [] for name in kept}
    for i in range(WARM_UP + runs):
        for name, call in calls.items():
            started = time.perf_counter()
            result = call()
            ms = (time.perf_counter() - started) * 1e3
            if name in EFFECTS:
                time.sleep(REST)
            if i >= WARM_UP:
                times[name].append(ms)
                if name in results:
                    results[name].append(result)
        step()
    return times, results


# --- what else is measured ----------------------------------------------------------------------------------------------
def _beside(explanation: Explanation, photo: np.ndarray) -> dict[Any, Call]:
    """Return the calls that are measured beside the explanation, on the photo in its own size."""
    done, jpeg = cv2.imencode(".jpg", photo[..., ::-1]) if max(photo.shape) <= MAX_JPEG_SIDE else (False, None)
    if not done or jpeg is None:
        raise ParameterError(f"A photo of {photo.shape[1]} x {photo.shape[0]} pixels cannot be a JPEG. Take another for bench.")
    encoded = jpeg.tobytes()
    overlaid = explanation.overlay()
    calls = (
        lambda: load_photo(encoded), lambda: explanation.heatmap, lambda: explanation.overlay(), lambda: encode_png(overlaid)
    )  # fmt: skip
    return dict(zip(BESIDE, calls, strict=True))


def _spinning(engine: Engine, when: str) -> Explainer:
    """Return an explainer like it, of sessions whose waiting threads spin at other times."""
    sessions = engine.sessions
    return Explainer(
        Engine(
            engine.bundle, sessions.choice.names, max_masked_batch=engine.max_masked_batch, threads=sessions.threads,
            spinning=when, gpu_mem_limit=sessions.choice.gpu_mem_limit,
        )
    )  # fmt: skip


def _in_whole_products(call: Call) -> Any:
    """Call with the K-means multiplying whole matrices, which wakes OpenBLAS's threads."""
    before, kmeans.BLOCK = kmeans.BLOCK, 1 << 60
    try:
        return call()
    finally:
        kmeans.BLOCK = before


def _source_floor(explainer: Explainer, source: Path) -> tuple[Callable[[np.ndarray], Any], str]:
    """Return the uncut model as a function of a batch."""
    if not source.is_file():
        raise ParameterError(f"{source}: there is no such file. --source takes the .onnx file that the bundle was made from.")
    if sha256_of(source) != explainer.manifest.source.sha256:
        warnings.warn(
            f"{source} is not the file that the bundle was made from ({explainer.manifest.source.file}); "
            "the ratio compares two models.",
            UserWarning,
            stacklevel=3,
        )
    sessions = explainer.engine.sessions
    session, _ = open_session(source, sessions.choice, sessions.threads)
    image = session.get_inputs()[0]
    if list(image.shape[1:]) != list(explainer.manifest.image.shape[1:]) or isinstance(image.shape[0], int):
        raise ParameterError(
            f"{source} takes {image.shape}, the floor needs a free batch of {list(explainer.manifest.image.shape[1:])}. "
            "Leave out --source: head → tail is measured instead."
        )
    return lambda x: session.run(None, {image.name: x}), source.name


def _pattern() -> np.ndarray:
    """Return a smooth coloured pattern of 640 × 480 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
