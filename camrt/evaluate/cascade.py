"""How far heatmaps follow the weights: explain with the last layers' shuffled, then with more of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from camrt.errors import CamrtError, ImageError
from camrt.evaluate.attempt import attempt
from camrt.evaluate.records import Records
from camrt.evaluate.scene import Scene, scene_of
from camrt.evaluate.subject import Subject
from camrt.evaluate.variant import Variant
from camrt.explainer import Explainer, load
from camrt.metrics import depths, randomised, rank_correlation

RANDOMISED_PHOTOS = 10  # photos that are explained with shuffled weights
STAGES = 6  # of the cascade, from the last layers alone to all


@dataclass(frozen=True)
class Cascade:
    """Methods on photos, by an explainer and by copies of it with ever more shuffled weights.

    Attributes
    ----------
    explainer : Explainer
    subjects : sequence of Subject
    target : {"top", "label"}
        As in `camrt.evaluate.Evaluation`.
    variants : sequence of Variant
        Methods that the bundle can run; controls look at no weights.
    records : Records
        Where correlations are kept.
    """

    explainer: Explainer
    subjects: Sequence[Subject]
    target: str
    variants: Sequence[Variant]
    records: Records

    def run(self, step: Callable[[], None]) -> None:
        """Keep the correlations that are not there yet; `step` is called after each photo of each stage."""
        bundle = self.explainer.engine.bundle
        for depth in depths(bundle.manifest, STAGES):
            with tempfile.TemporaryDirectory() as folder:
                other: Explainer | None = None
                for subject in self.subjects:
                    with suppress(ImageError):  # that photo was told of before
                        state = subject.state()
                        if missing := self._missing(subject, state, depth):
                            other = other or self._opened(randomised(bundle, Path(folder) / "randomised", depth))
                            self._compare(other, subject, state, depth, missing)
                    step()

    def _opened(self, folder: Path) -> Explainer:
        engine, sessions = self.explainer.engine, self.explainer.engine.sessions
        return load(
            folder, list(sessions.choice.names), max_masked_batch=engine.max_masked_batch, threads=sessions.threads, cache=False
        )

    def _compare(self, other: Explainer, subject: Subject, state: str, depth: int, missing: Sequence[Variant]) -> None:
        """Keep how a photo's heatmaps by another explainer correlate with those by this one."""
        scene = scene_of(self.explainer, subject, self.target)
        for variant in missing:
            found = self._correlation(other, scene, variant)
            self.records.add(photo=subject.name, state=state, variant=variant.name, depth=depth, correlation=found)

    def _missing(self, subject: Subject, state: str, depth: int) -> list[Variant]:
        of_stage = [line for line in self.records.about(subject.name) if line.get("depth") == depth and line["state"] == state]
        done = {line["variant"] for line in of_stage}
        return [v for v in self.variants if v.name not in done]

    def _correlation(self, other: Explainer, scene: Scene, variant: Variant) -> float:
        """Return the size of the rank correlation; 1, the worst, where this explainer's heatmap could not be made."""
        try:
            own, theirs = (attempt(e, scene.x, variant, scene.target).heatmap for e in (self.explainer, other))
        except CamrtError:
            return 1.0
        return abs(rank_correlation(own, theirs)) if own.any() else 1.0
