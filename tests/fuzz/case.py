"""One case: a damaged model made from a seed, exported, and the outcome judged."""

from __future__ import annotations

import resource
import shutil
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from onnx import ModelProto

import camrt
from camrt.errors import CamrtError, ExportError
from exporters import export
from tests.fuzz.damage import damaged
from tests.fuzz.externals import SECRET, furnish, move_out
from tests.fuzz.models import MODELS, serialised
from tests.fuzz.mutations import mutated

EXPORTED, REFUSED, FAILED = "exported", "refused", "FAILED"
MAX_GROWTH = 1 << 30  # bytes that one case may add to the process; a plain one adds a hundredth of that
PHOTO = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes
    ----------
    seed : int
    kind : str
        Which models and mutations it was made of.
    word : {"exported", "refused", "FAILED"}
    text : str
        The message of a refusal; what is wrong with a failure.
    seconds : float
    """

    seed: int
    kind: str
    word: str
    text: str = ""
    seconds: float = 0.0


def make(seed: int, root: Path) -> tuple[Path, str]:
    """Write the model of a case into root/in and return its path and a description; the same seed gives the same files."""
    random = Random(seed)
    folder = root / "in"
    folder.mkdir(parents=True)
    name, other = random.choices(list(MODELS), k=2)
    data, path = serialised(name), folder / "model.onnx"
    road = random.choices(("bytes", "mutations", "externals", "both"), (30, 55, 10, 5))[0]
    steps: list[str] = []
    if road != "bytes":
        model = ModelProto.FromString(data)
        if road == "externals":
            weights = move_out(model, random, root)
            furnish(folder, weights if random.random() < 0.9 else damaged(weights or b"0", random, data))
        if road != "externals" or random.random() < 0.1:
            steps = mutated(model, random)
        data = model.SerializeToString(deterministic=True)
    if road in ("bytes", "both"):
        data = damaged(data, random, serialised(other))
    path.write_bytes(data)
    return path, f"{name} {road} {' '.join(steps)}".strip()


def run(seed: int, root: Path) -> Outcome:
    """Make, export and judge a case in an empty folder, which is removed afterwards."""
    kind = ""
    started = time.perf_counter()
    try:
        path, kind = make(seed, root)
        word, text = judge(path, root, (16, 16) if seed % 4 == 0 or "open_size" in kind else None)
    except Exception as error:
        word, text = FAILED, "".join(traceback.format_exception(error)[-6:])
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Outcome(seed, kind, word, text, time.perf_counter() - started)


def judge(path: Path, root: Path, size: tuple[int, int] | None) -> tuple[str, str]:
    """Export a model into root/out/bundle and return the outcome and what to say of it."""
    out = root / "out"
    out.mkdir()
    before = _listing(root)
    _forget_peak()
    level = _memory("VmRSS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export(path, out / "bundle", force=True, size=size)
        word, text = EXPORTED, ""
    except ExportError as error:
        word, text = REFUSED, str(error)
    wrong = _wrong_refusal(text) if word == REFUSED else _wrong_bundle(out / "bundle")
    left = (
        _listing(root)
        - before
        - ({path for path in _listing(root) if path.startswith("out/bundle")} if word == EXPORTED else set())
    )
    if left:
        wrong = wrong or f"left behind: {', '.join(sorted(left))}"
    if (grown := _memory("VmHWM") - level) > MAX_GROWTH:
        wrong = wrong or f"took {grown >> 20} MiB; {word}: {text}"
    return (FAILED, wrong) if wrong else (word, text)


def _wrong_refusal(text: str) -> str:
    if not text.strip() or "\n" in text:
        return f"the message is no line: {text!r}"
    if len(text) > 5000:
        return f"the message has {len(text)} characters: {text[:200]}"
    if any(
        sign in text.lower()
        for sign in ("bad_alloc", "bad allocation", "memoryerror", "failed to allocate", "unable to allocate")
    ):
        return f"memory was asked for without bound: {text[:300]}"
    return ""


def _wrong_bundle(folder: Path) -> str:
    """Return what is wrong with a bundle: it must open and explain a photo."""
    if any(SECRET[:32] in file.read_bytes() for file in folder.iterdir()):
        return "the bundle holds what lies outside of the model's folder"
    try:
        explainer = camrt.load(folder, providers=["cpu"])
        explanation = explainer.explain(PHOTO, clusters=3)
    except CamrtError as error:
        return f"the bundle cannot be used: {type(error).__name__}: {error}"
    heatmap = explanation.heatmap
    if not np.isfinite(heatmap).all() or heatmap.min() < 0 or heatmap.max() > 1:
        return "the heatmap leaves [0, 1]"
    return ""


def _listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# --- memory ---------------------------------------------------------------------------------------------------------------
def bound_memory(limit: int) -> None:
    """Let allocations beyond `limit` bytes of address space fail."""
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(entry: str) -> int:
    """Return VmRSS or VmHWM of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) << 10


def main() -> None:
    """Run one case here, for a debugger: python -m tests.fuzz.case SEED."""
    print(run(int(sys.argv[1]), Path("fuzz-case")))


if __name__ == "__main__":
    main()
