"""Measure methods on photos, one photo after the other, keeping what is found as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camrt import __version__
from camrt.errors import BundleError, DeviceMemoryError, ImageError, MethodUnavailable, ParameterError
from camrt.evaluate.attempt import attempt
from camrt.evaluate.cascade import RANDOMISED_PHOTOS, STAGES, Cascade
from camrt.evaluate.measures import Asked, measure
from camrt.evaluate.records import Records
from camrt.evaluate.results import MethodResult, PhotoResult
from camrt.evaluate.scene import TARGETS, Scene, scene_of
from camrt.evaluate.scorer import Scorer
from camrt.evaluate.subject import Subject
from camrt.evaluate.variant import Variant
from camrt.explainer import Explainer
from camrt.footprint import footprint
from camrt.methods import SLOW
from camrt.metrics import depths

MANY_PASSES = 200  # of a method whose memory is not measured, as it is run several times for that


@dataclass(frozen=True)
class Evaluation:
    """What is measured, on which photos, how.

    Attributes
    ----------
    explainer : Explainer
    subjects : sequence of Subject
    variants : sequence of Variant
    asked : Asked
    target : {"top", "label"}
        The class that is explained: that which the network names, as the protocol of RISE has it, or the photo's label.
    """

    explainer: Explainer
    subjects: Sequence[Subject]
    variants: Sequence[Variant]
    asked: Asked
    target: str = "top"

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ParameterError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}.")
        self.asked.protocol.counts(*self.explainer.manifest.size)  # refuses more points than there can be
        if self.asked.groups == ("localisation",) and not any(s.boxes or s.mask for s in self.subjects):
            raise ParameterError(
                "Localisation is asked for, and nobody told where objects lie. Give boxes or masks, or other metrics."
            )
        unlabelled = sum(s.label is None for s in self.subjects)
        if self.target == "label" and unlabelled:
            raise ParameterError(
                f"The labels are to be explained, and {unlabelled} of {len(self.subjects)} photos have none. "
                "Give their labels, leave the photos out, or explain what the network names: target 'top'."
            )

    @property
    def question(self) -> dict[str, Any]:
        """Return what must be the same for results to be of use."""
        protocol = self.asked.protocol
        return {
            "bundle": self.explainer.engine.bundle.sha256, "protocol": protocol.name, "points": protocol.points,
            "groups": list(self.asked.groups), "tolerance": self.asked.tolerance, "target": self.target, "camrt": __version__,
        }  # fmt: skip

    @property
    def steps(self) -> int:
        """Return how many steps `run` tells of."""
        stages = depths(self.explainer.manifest, STAGES) if "randomisation" in self.asked.groups else ()
        cascade = len(stages) * len(self.subjects[:RANDOMISED_PHOTOS])
        return len(self.variants) * (len(self.subjects) + 1 + cascade)

    def run(self, folder: Path, *, restart: bool = False, step: Callable[[int], None] = lambda _: None) -> Records:
        """Measure what the folder does not hold yet.

        Parameters
        ----------
        folder : Path
            Where results.jsonl grows.
        restart : bool
            Forget what is there.
        step : callable, optional
            Told how many steps were done, of `steps`.

        Returns
        -------
        Records
            Closed.

        Raises
        ------
        ParameterError
            The folder holds results of another question, or cannot be written.
        BundleError
            The bundle was replaced since it was loaded, or a graph fails on this provider.
        """
        records = Records(folder, self.question, classes=self.explainer.manifest.classes, restart=restart)
        try:
            self.explainer.engine.sessions.open_all()  # so that no method pays for opening what the others use too
            for subject in self.subjects:
                _Photo(self, subject, records).measure(step)
                records.sync()
            if "randomisation" in self.asked.groups:
                self._cascade(records).run(lambda: step(len(self.variants)))
            self._memory(records, step)
            records.sync()
        finally:
            records.close()
        return records

    def open_to(self, records: Records) -> list[Variant]:
        """Return the variants that this bundle can run, as far as is known."""
        return [v for v in self.variants if v.name not in records.closed]

    def _cascade(self, records: Records) -> Cascade:
        methods = [v for v in self.open_to(records) if v.method is not None]
        return Cascade(self.explainer, self.subjects[:RANDOMISED_PHOTOS], self.target, methods, records)

    def _memory(self, records: Records, step: Callable[[int], None]) -> None:
        """Measure the peak memory of methods, each in a process of its own."""
        known = {line["variant"] for line in records.about(None) if "memory" in line}
        passes = {line["variant"]: line["passes"] + line["tail_passes"] for line in records.lines if "passes" in line}
        for variant in self.variants:
            few = passes.get(variant.name, MANY_PASSES) < MANY_PASSES
            if variant.method is not None and variant.name not in known and few:
                found = footprint(self.explainer, None, variant.method.name, variant.settings, bare=None)
                if found is not None:
                    records.add(variant=variant.name, memory=found.resident, device_memory=found.device)
            step(1)


@dataclass
class _Photo:
    """One photo on its way through all variants."""

    evaluation: Evaluation
    subject: Subject
    records: Records

    def measure(self, step: Callable[[int], None]) -> None:
        """Keep the figures that are not there yet, or why there are none."""
        name, variants = self.subject.name, self.evaluation.variants
        missing: Sequence[Variant] = variants
        try:
            state = self.subject.state()
            lines = [line for line in self.records.about(name) if line.get("state") == state]
            done = {line["variant"] for line in lines if "values" in line}
            missing = [v for v in self.evaluation.open_to(self.records) if v.name not in done]
            step(len(variants) - len(missing))
            known = [line for line in lines if "target" in line]
            if not missing and known:
                self._bring_last(known[-1])
                return
            before = len(self.records.about(name))
            scene = scene_of(self.evaluation.explainer, self.subject, self.evaluation.target)
        except ImageError as error:
            self.records.add(photo=name, error=str(error))
            step(len(missing))
            return
        for variant in missing:
            self._measure_one(scene, variant, state)
            step(1)
        if known and len(self.records.about(name)) == before:  # none of them can run
            self._bring_last(known[-1])
            return
        times = (known[-1]["one_ms"], known[-1]["pass_ms"]) if known else self._pass_times(scene)
        self.records.add(photo=name, **asdict(self._result(scene, state, times)))

    def _result(self, scene: Scene, state: str, times: tuple[float, float]) -> PhotoResult:
        seen = None if scene.region is None else float(scene.region.mean())
        size = list(scene.x.shape[1:])
        return PhotoResult(state, scene.target, scene.top, self.subject.label, scene.whole, size, seen, *times)

    def _bring_last(self, known: dict[str, Any]) -> None:
        """Keep a line again where the photo was another, or unreadable, since then: the last line counts."""
        if [line for line in self.records.about(self.subject.name) if "target" in line or "error" in line][-1] is not known:
            self.records.add(**known)

    def _pass_times(self, scene: Scene) -> tuple[float, float]:
        """Return the milliseconds of a bare pass: of one image by itself, and of one in a batch."""
        one = Scorer(self.evaluation.explainer, scene.target)
        one(scene.x[None])
        batched = scene.score.ms / scene.score.images if scene.score.images else one.ms
        return round(one.ms, 3), round(batched, 3)

    def _measure_one(self, scene: Scene, variant: Variant, state: str) -> None:
        try:
            if not any("values" in line and line["variant"] == variant.name for line in self.records.lines):
                self._warm_up(scene, variant)
            found = measure(self.evaluation.explainer, scene, variant, self.evaluation.asked)
        except MethodUnavailable as error:
            self.records.add(variant=variant.name, unavailable=str(error))
            return
        self.records.add(photo=self.subject.name, state=state, variant=variant.name, **asdict(MethodResult.of(found)))

    def _warm_up(self, scene: Scene, variant: Variant) -> None:
        """Explain once untimed, so that the first photo does not pay for what loads and grows; slow methods do not feel it."""
        if variant.method is not None and variant.method.name not in SLOW:
            with suppress(DeviceMemoryError, ParameterError, BundleError):  # measured, it is told
                attempt(self.evaluation.explainer, scene.x, variant, scene.target)
