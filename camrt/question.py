"""What is asked about an image: the classes, by which method, with which parameters; checked once for all images."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from camrt.engine import check_count
from camrt.errors import MethodUnavailable, ParameterError, UnknownTarget, did_you_mean
from camrt.manifest import Manifest, match_label
from camrt.methods import GRADIENTS, METHODS, Method, get_method


@dataclass(frozen=True)
class Question:
    """A checked question.

    Attributes
    ----------
    method : Method
    settings : mapping
        Every parameter of the method with its value.
    classes : list of int, or int
        The classes, or how many of the most probable ones.
    versus : int or None
        The class against which they are explained.
    """

    method: Method
    settings: Mapping[str, Any]
    classes: list[int] | int
    versus: int | None

    @property
    def count(self) -> int:
        """T, how many classes are explained."""
        return len(self.classes) if isinstance(self.classes, list) else self.classes

    @property
    def alike(self) -> tuple[Any, ...]:
        """What questions have in common that can be answered together: all but which classes they ask about."""
        return self.method.name, *self.settings.items(), self.count, self.versus

    def targets(self, logits: np.ndarray) -> np.ndarray:
        """Return class indices (N, T) for logits (N, L); the most probable by falling logit, equal ones by index, NaN last."""
        if isinstance(self.classes, list):
            return np.repeat(np.array([self.classes]), len(logits), axis=0)
        return np.argsort(-logits, axis=1, kind="stable")[:, : self.classes]


def read_question(
    manifest: Manifest,
    method: str,
    parameters: Mapping[str, Any],
    *,
    target: int | str | None = None,
    targets: Iterable[int | str] | None = None,
    top: int | None = None,
    versus: int | str | None = None,
) -> Question:
    """Return the question that `Explainer.explain` was asked, checked.

    Raises
    ------
    UnknownTarget, UnknownMethod, ParameterError
        What was asked for is not there, or not allowed.
    MethodUnavailable
        The bundle lacks what the method needs.
    """
    chosen = get_method(method)
    settings = chosen.settings(parameters)
    check_gradients(manifest, chosen)
    classes = _read_classes(manifest, target, targets, top)
    other = None if versus is None else class_index(manifest, versus)
    if isinstance(classes, list) and other in classes:
        raise ParameterError(f"versus must be another class than the target, got {versus!r} for both.")
    return Question(chosen, settings, classes, other)


def check_gradients(manifest: Manifest, method: Method) -> None:
    """Refuse a method that needs gradients where the bundle has none.

    Raises
    ------
    MethodUnavailable
        It says why there are none.
    """
    missing = manifest.gradient_missing
    if GRADIENTS in method.needs and missing is not None:
        others = ", ".join(name for name, other in METHODS.items() if GRADIENTS not in other.needs)
        raise MethodUnavailable(
            f"{method.name} needs gradients, and the bundle {manifest.name!r}, cut at {manifest.layer.name!r}, "
            f"has none: {missing}. Export the model at a later layer (camrt layers lists them), or take a method without "
            f"gradients: {others}."
        )


def _read_classes(
    manifest: Manifest, target: int | str | None, targets: Iterable[int | str] | None, top: int | None
) -> list[int] | int:
    if sum(given is not None for given in (target, targets, top)) > 1:
        raise ParameterError("Give one of target, targets and top, not several.")
    if target is not None:
        return [class_index(manifest, target)]
    if targets is not None:
        if isinstance(targets, str) or not isinstance(targets, Iterable) or not (listed := list(targets)):
            raise ParameterError(f"targets must be a list of classes, got {targets!r}. For one class, use target.")
        return [class_index(manifest, t) for t in listed]
    if top is None:
        return 1
    check_count("top", top, 1, manifest.classes)
    return int(top)


def class_index(manifest: Manifest, target: int | str) -> int:
    """Return the index of a class given by index or label.

    Raises
    ------
    UnknownTarget
        No class, or more than one, is meant.
    """
    labels, classes = manifest.labels, manifest.classes
    if isinstance(target, str):
        matches = match_label(labels, target)
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(f"{i} ({labels[i]})" for i in matches)
            raise UnknownTarget(f"{target!r} is the name of {len(matches)} classes: {listed}. Give the index.")
        if not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", target):
            names = [name.strip() for label in labels for name in label.split(",")]
            known = f" Its {classes} classes: {manifest.some_labels}; camrt info --json lists all."
            advice = did_you_mean(target, names) + known if labels else " The bundle has no labels; give an index."
            raise UnknownTarget(f"{manifest.name} has no class {target!r}.{advice}")
        target = int(target)
    try:
        index = operator.index(target)
    except TypeError:
        raise UnknownTarget(f"A target is a class index or a label, got {target!r}.") from None
    if isinstance(target, bool) or not 0 <= index < classes:
        raise UnknownTarget(f"{manifest.name} has the classes 0…{classes - 1}, got {target!r}.")
    return index
