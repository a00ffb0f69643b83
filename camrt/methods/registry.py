"""The catalogue of methods: a dict, a decorator, and a lookup that suggests the nearest name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from camrt.errors import ParameterError, UnknownMethod, did_you_mean

METHODS: dict[str, Method] = {}

SLOW = ("score-cam", "rise")  # hundreds to thousands of passes an image

# What a method may need of the network.
GRADIENTS, MASKED_IMAGES, TAIL = "gradients", "masked images", "the tail on edited features"


@dataclass(frozen=True)
class Parameter:
    """What one parameter of a method may be.

    Attributes
    ----------
    default : bool, int, float or str
        Also tells the type of the numbers that are allowed.
    help : str
        One line.
    choices : tuple of str
        The words that are allowed.
    least : float or None
        The least number that is allowed; None where only words are.
    most : float
        The greatest.
    """

    default: bool | int | float | str
    help: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float = 2**32

    @property
    def allowed(self) -> str:
        """Say what is allowed.

        >>> Parameter(10, "how many", ("auto",), least=1, most=64).allowed
        'a whole number from 1 to 64 or auto'
        """
        if isinstance(self.default, bool):
            return "true or false"
        number = "a whole number" if isinstance(self.default, int) else "a number"
        words = f"{'one of ' if len(self.choices) > 1 else ''}{', '.join(self.choices)}"
        numbers = [f"{number} from {self.least:g} to {self.most:.12g}"] if self.least is not None else []
        return " or ".join(numbers + [words] * bool(self.choices))

    def check(self, name: str, value: Any) -> bool | int | float | str:
        """Return the value in its own type; text that is a number, or true or false, counts as one."""
        if isinstance(self.default, bool):
            word = str(value).lower() if isinstance(value, str | bool | np.bool_) else ""
            if word in ("true", "false"):
                return word == "true"
            raise ParameterError(f"{name} must be {self.allowed}, got {value!r}.")
        if isinstance(value, str) and value in self.choices:
            return value
        kind = type(self.default) if isinstance(self.default, int | float) else float
        if self.least is not None and not isinstance(value, bool):
            try:
                number = kind(value)
            except (TypeError, ValueError, OverflowError):
                number = None
            if number is not None and self.least <= number <= self.most and (isinstance(value, str) or number == value):
                return number
        raise ParameterError(f"{name} must be {self.allowed}, got {value!r}.{did_you_mean(str(value), self.choices)}")


# Parameters of several methods.
SCORE = Parameter("probability", "what the network's answers are measured by", ("probability", "logit"))
SEED = Parameter(0, "of K-means, spectral clustering and random masks", least=0)


@dataclass(frozen=True)
class Method:
    """A way to compute a heatmap.

    Attributes
    ----------
    name : str
        As users write it, "cluster-cam".
    run : callable
        (case, **parameters) → signed maps (N, T, h, w).
    needs : tuple of str
        What it asks of the network beside the features: "gradients", "masked images", "the tail on edited features".
    passes : str
        What an image costs, as a formula: forward passes, K masked images, T targets.
    citation : str
        The paper.
    parameters : mapping of str to Parameter
    """

    name: str
    run: Callable[..., np.ndarray]
    needs: tuple[str, ...]
    passes: str
    citation: str
    parameters: Mapping[str, Parameter]

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return every parameter's value, the given ones checked.

        Raises
        ------
        ParameterError
            A name is unknown or a value is not allowed.
        """
        for name in given:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise ParameterError(
                    f"{self.name} has no parameter {name!r}.{did_you_mean(name, self.parameters)} It has: {known}."
                )
        return {
            name: parameter.check(name, given[name]) if name in given else parameter.default
            for name, parameter in self.parameters.items()
        }


def method(
    name: str,
    *,
    passes: str,
    citation: str,
    needs: tuple[str, ...] = (),
    parameters: Mapping[str, Parameter] = MappingProxyType({}),
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Enter the decorated function into the catalogue."""

    def enter(run: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        METHODS[name] = Method(name, run, needs, passes, citation, parameters)
        return run

    return enter


def get_method(name: str) -> Method:
    """Return the method of that name.

    Raises
    ------
    UnknownMethod
        There is none; the nearest name is suggested.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise UnknownMethod(f"There is no method {name!r}.{did_you_mean(str(name), METHODS)} Known: {', '.join(METHODS)}.")
    return METHODS[name]
