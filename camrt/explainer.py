"""Explain images: photo → x → features → maps → scores → heatmap on the photo."""

from __future__ import annotations

import operator
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from camrt.bundle import open_bundle
from camrt.case import Case, probabilities
from camrt.engine import MAX_MASKED_BATCH, Engine, check_count
from camrt.errors import MethodUnavailable, ParameterError, UnknownTarget, did_you_mean
from camrt.explanation import Category, Explanation, Run, Target
from camrt.heatmap import Outcome, outcomes
from camrt.image import preprocess_photo
from camrt.manifest import Manifest, match_label
from camrt.methods import GRADIENTS, METHODS, Method, get_method
from camrt.photo import MAX_PIXELS, ImageSource, load_photo
from camrt.providers import versions

DEFAULT_METHOD = "cluster-cam"
IMAGES_PER_GROUP = 8  # images of a list that go through the head together


def load(
    bundle: str | os.PathLike[str],
    providers: Sequence[str] | str | None = None,
    *,
    max_masked_batch: int = MAX_MASKED_BATCH,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Explainer:
    """Open a bundle.

    Parameters
    ----------
    bundle : path or name
        A folder that `camrt export` wrote, or the name of a built-in one ("shapes").
    providers : sequence of str, optional
        Execution providers to try in order: ["cuda", "cpu"], ["cpu"], ["tensorrt", "cuda"], …  By default CUDA where
        this ONNX Runtime has it, else the CPU; every result says which one ran.
    max_masked_batch : int, default 64
        Most masked images, edited features or gradients in one call; more go in chunks.
    threads : int, default 0
        Threads of one operator on the CPU; 0 is one per core.
    max_pixels : int
        Height × width of a photo above which it is not decoded.

    Raises
    ------
    BundleError
        The folder is no bundle, or not what its bundle.json says.
    ProviderError
        A provider is not installed or did not start.
    ParameterError
        A number is outside what is allowed.
    """
    if not isinstance(bundle, str | os.PathLike):
        raise ParameterError(f"bundle must be a folder or the name of a built-in one, got {bundle!r}.")
    engine = Engine(open_bundle(Path(bundle)), providers, max_masked_batch=max_masked_batch, threads=threads)
    return Explainer(engine, max_pixels=max_pixels)


class Explainer:
    """A loaded bundle that explains images; one serves all threads.

    Attributes
    ----------
    engine : Engine
    manifest : Manifest
        What bundle.json says.
    """

    def __init__(self, engine: Engine, *, max_pixels: int = MAX_PIXELS):
        self.engine = engine
        self.manifest: Manifest = engine.bundle.manifest
        self.max_pixels = max_pixels

    def __repr__(self) -> str:
        m = self.manifest
        size = f"{m.size[0]} x {m.size[1]}"
        return f"Explainer({m.name!r}, {m.classes} classes, {size}, cut at {m.layer.name!r}, {self.engine.provider})"

    @overload
    def explain(
        self, image: list[ImageSource] | tuple[ImageSource, ...], *, target: int | str | None = ...,
        targets: Iterable[int | str] | None = ..., top: int | None = ..., versus: int | str | None = ..., method: str = ...,
        **parameters: Any,
    ) -> list[Explanation]: ...  # fmt: skip
    @overload
    def explain(
        self, image: ImageSource, *, target: int | str | None = ..., targets: Iterable[int | str] | None = ...,
        top: int | None = ..., versus: int | str | None = ..., method: str = ..., **parameters: Any,
    ) -> Explanation: ...  # fmt: skip
    def explain(
        self,
        image: Any,
        *,
        target: int | str | None = None,
        targets: Iterable[int | str] | None = None,
        top: int | None = None,
        versus: int | str | None = None,
        method: str = DEFAULT_METHOD,
        **parameters: Any,
    ) -> Explanation | list[Explanation]:
        """Return where the network looked.

        Parameters
        ----------
        image : path, bytes, array, or a list of them
            As `camrt.photo.load_photo` takes it.  A list gives a list.
        target : int or str, optional
            The class to explain, by index or label.  One of `target`, `targets` and `top`; by default the top class.
        targets : sequence of int or str, optional
            Several classes; for methods whose masks do not depend on the class they cost what one costs.
        top : int, optional
            How many of the most probable classes.
        versus : int or str, optional
            Explain why the target and not this class: scores, logits and gradients are differences of the two.  Among the
            `top` classes it gets a map of zeros itself.
        method : str, default "cluster-cam"
            `camrt methods` lists them.
        **parameters
            The method's own.

        Raises
        ------
        ImageError
            An image cannot be read.
        UnknownTarget, UnknownMethod, ParameterError
            What was asked for is not there, or not allowed.
        MethodUnavailable
            The bundle or this installation lacks what the method needs.
        DeviceMemoryError
            Not even one masked image fits.
        BundleError
            The bundle was replaced since it was loaded, or a graph fails on this provider.
        """
        chosen = get_method(method)
        settings = chosen.settings(parameters)
        self.check_gradients(chosen)
        classes = self._asked_classes(target, targets, top)
        other = None if versus is None else self.class_index(versus)
        if isinstance(classes, list) and other in classes:
            raise ParameterError(f"versus must be another class than the target, got {versus!r} for both.")
        if not isinstance(image, list | tuple):
            return self._explain_group([image], classes, other, chosen, settings)[0]
        together = min(IMAGES_PER_GROUP, self.engine.max_masked_batch)
        groups = (image[i : i + together] for i in range(0, len(image), together))
        return [explanation for group in groups for explanation in self._explain_group(group, classes, other, chosen, settings)]

    def _explain_group(
        self, images: Sequence[Any], classes: list[int] | int, versus: int | None, method: Method, settings: dict[str, Any]
    ) -> list[Explanation]:
        started = time.perf_counter()
        photos = [load_photo(image, self.max_pixels) for image in images]
        decoded = time.perf_counter()
        inputs = [preprocess_photo(photo.pixels, self.manifest.preprocess) for photo in photos]
        ready = time.perf_counter()
        case = Case(self.engine, np.stack([x for x, _ in inputs]))
        case.targets, case.versus = self._targets(case.logits, classes), versus
        signed, codes = self.maps(case, method, settings)
        timings = {"decode": (decoded - started) * 1e3, "preprocess": (ready - decoded) * 1e3} | case.timings
        timings["total"] = (time.perf_counter() - started) * 1e3
        run = Run(
            method=method.name,
            parameters=settings,
            passes=case.passes,
            tail_passes=case.tail_passes,
            backward_passes=case.backward_passes,
            masked_batch=case.masked_batch,
            timings={stage: ms / len(photos) for stage, ms in timings.items()},
            provider=self.engine.provider,
            versions=versions(),
            bundle=self.manifest.name,
            bundle_sha256=self.engine.bundle.sha256,
        )
        fallback = ("provider_fallback",) * self.engine.fell_back
        return [
            Explanation(photo, chosen, maps, where, (*notes, *fallback), run)
            for photo, chosen, maps, (_, where), notes in zip(
                photos, self._describe(case, codes), signed, inputs, case.notes, strict=True
            )
        ]

    def maps(self, case: Case, method: Method, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the signed maps (N, T, h, w) and outcomes (N, T) of a case whose targets are set."""
        with case.rest("merge"), np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # that becomes an outcome
            asked = case.finite[:, None] & (case.targets != case.versus)  # a class differs from itself in nothing
            signed = np.where(asked[..., None, None], self._signed_maps(case, method, settings), np.float32(0))
            return signed, outcomes(signed, case.features, case.finite, case.size)

    def _signed_maps(self, case: Case, method: Method, settings: dict[str, Any]) -> np.ndarray:
        """Run a method; by gradients some targets at a time, as those of a thousand classes would fill the memory."""
        if GRADIENTS not in method.needs:
            return method.run(case, **settings)
        targets = case.targets
        together = max(1, self.engine.max_masked_batch // len(targets))
        parts = []
        for start in range(0, targets.shape[1], together):
            case.targets = targets[:, start : start + together]
            parts.append(method.run(case, **settings))
        case.targets = targets
        return np.concatenate(parts, axis=1)

    def check_gradients(self, method: Method) -> None:
        """Refuse a method that needs gradients where the bundle has none.

        Raises
        ------
        MethodUnavailable
            It says why there are none.
        """
        missing = self.manifest.gradient_missing
        if GRADIENTS in method.needs and missing is not None:
            others = ", ".join(name for name, other in METHODS.items() if GRADIENTS not in other.needs)
            raise MethodUnavailable(
                f"{method.name} needs gradients, and the bundle {self.manifest.name!r}, cut at {self.manifest.layer.name!r}, "
                f"has none: {missing}. Export the model at a later layer (camrt layers lists them), or take a method without "
                f"gradients: {others}."
            )

    # --- targets ----------------------------------------------------------------------------------------------------------
    def _asked_classes(self, target: int | str | None, targets: Iterable[int | str] | None, top: int | None) -> list[int] | int:
        """Return the class indices that were asked for, or how many of the most probable ones."""
        if sum(given is not None for given in (target, targets, top)) > 1:
            raise ParameterError("Give one of target, targets and top, not several.")
        if target is not None:
            return [self.class_index(target)]
        if targets is not None:
            if isinstance(targets, str) or not isinstance(targets, Iterable) or not (listed := list(targets)):
                raise ParameterError(f"targets must be a list of classes, got {targets!r}. For one class, use target.")
            return [self.class_index(t) for t in listed]
        if top is None:
            return 1
        check_count("top", top, 1, self.manifest.classes)
        return int(top)

    def class_index(self, target: int | str) -> int:
        """Return the index of a class given by index or label.

        Raises
        ------
        UnknownTarget
            No class, or more than one, is meant.
        """
        labels, classes = self.manifest.labels, self.manifest.classes
        if isinstance(target, str):
            matches = match_label(labels, target)
            if len(matches) == 1:
                return matches[0]
            if matches:
                listed = ", ".join(f"{i} ({labels[i]})" for i in matches)
                raise UnknownTarget(f"{target!r} is the name of {len(matches)} classes: {listed}. Give the index.")
            if not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", target):
                names = [name.strip() for label in labels for name in label.split(",")]
                known = f" Its {classes} classes: {self.manifest.some_labels}; camrt info --json lists all."
                advice = did_you_mean(target, names) + known if labels else " The bundle has no labels; give an index."
                raise UnknownTarget(f"{self.manifest.name} has no class {target!r}.{advice}")
            target = int(target)
        try:
            index = operator.index(target)
        except TypeError:
            raise UnknownTarget(f"A target is a class index or a label, got {target!r}.") from None
        if isinstance(target, bool) or not 0 <= index < classes:
            raise UnknownTarget(f"{self.manifest.name} has the classes 0…{classes - 1}, got {target!r}.")
        return index

    def _targets(self, logits: np.ndarray, classes: list[int] | int) -> np.ndarray:
        """Return the class indices (N, T), for `top` by falling logit, ties to the lowest index."""
        if isinstance(classes, list):
            return np.repeat(np.array([classes]), len(logits), axis=0)
        return np.argsort(-np.nan_to_num(logits, nan=-np.inf), axis=1, kind="stable")[:, :classes]

    def _describe(self, case: Case, codes: np.ndarray) -> list[tuple[Target, ...]]:
        other = None if case.versus is None else Category(case.versus, self.manifest.label(case.versus))
        with np.errstate(invalid="ignore", over="ignore"):
            p = np.take_along_axis(probabilities(case.logits, self.manifest.kind), case.targets, axis=1)
        return [
            tuple(
                Target(int(index), self.manifest.label(int(index)), float(probability), Outcome(int(code)), other)
                for index, probability, code in zip(*rows, strict=True)
            )
            for rows in zip(case.targets, p, codes, strict=True)
        ]
