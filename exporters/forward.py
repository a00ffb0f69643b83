"""Run a PyTorch model as a judge: in eval mode, on as many images at once as it takes, its outputs by name."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from camrt.errors import ExportError
from exporters.proof import SEED, TOLERANCE, Reference

Run = Callable[[torch.Tensor], Any]


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Keep a module in eval mode without gradients inside, and leave every part of it in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def tensors(result: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors in what a module returns: a dict's and a dataclass's by their keys, others by their numbers.

    >>> list(tensors({"logits": torch.ones(1), "hidden": (torch.ones(1), None)}))
    ['logits', 'hidden_0']
    """
    if isinstance(result, torch.Tensor):
        return {name or "output": result}
    if dataclasses.is_dataclass(result) and not isinstance(result, Mapping):
        result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    elif hasattr(result, "_asdict"):  # a named tuple
        result = result._asdict()
    elif isinstance(result, list | tuple):
        result = dict(enumerate(result))
        name = name or "output"
    if not isinstance(result, Mapping):
        return {}
    found: dict[str, torch.Tensor] = {}
    for key, part in result.items():
        found |= tensors(part, f"{name}_{key}" if name else str(key))
    return found


def know_dataclasses(result: Any) -> None:
    """Tell torch what the dataclasses in a module's result consist of; without that it cannot export them."""
    parts: Iterable[Any] = ()
    if isinstance(result, Mapping):
        parts = result.values()
    elif isinstance(result, list | tuple):
        parts = result
    elif dataclasses.is_dataclass(result):
        if any(leaf is result for leaf in tree_leaves(result)):
            torch.export.register_dataclass(type(result))
        parts = [getattr(result, field.name) for field in dataclasses.fields(result)]
    for part in parts:
        know_dataclasses(part)


def module_reference(module: torch.nn.Module, shape: tuple[int, ...]) -> Reference:
    """Return a module of one output as a function of any number of images.

    Parameters
    ----------
    module : nn.Module
    shape : (int, int, int, int)
        Of one image, (1, C, H, W).

    Raises
    ------
    ExportError
        What it says about an image depends on the other images, or on chance.
    """
    together = _takes_several(module, shape)
    if not together:
        warnings.warn(
            f"{type(module).__name__} itself works for one image at a time; the bundle takes any number, and is proved to say "
            "of each what the module says.",
            UserWarning,
            stacklevel=6,
        )

    def run(x: np.ndarray) -> np.ndarray:
        with evaluating(module):
            results = [_only(module(part)) for part in torch.split(torch.from_numpy(x), len(x) if together else 1)]
        return np.concatenate([result.reshape(len(x) // len(results), -1).numpy() for result in results])

    return run


def program_reference(run: Run, batch: int) -> Reference:
    """Return a program that was exported for `batch` images as a function of any number of them, one after the other."""

    def each(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            results = [_only(run(torch.from_numpy(one[None].repeat(batch, 0)))) for one in x]
        return np.stack([result[0].reshape(-1).numpy() for result in results])

    return each


def _only(result: Any) -> torch.Tensor:
    (tensor,) = tensors(result).values()
    return tensor


def _takes_several(module: torch.nn.Module, shape: tuple[int, ...]) -> bool:
    """Tell whether a module takes two images at once, and refuse it where that changes what it says of one."""
    x = torch.from_numpy(np.random.default_rng(SEED).standard_normal((2, *shape[1:]), np.float32))
    with evaluating(module):
        first, again, second = (_only(module(one[None])) for one in (x[0], x[0], x[1]))
        try:
            both = _only(module(x))
        except Exception:  # whatever the module's code raises
            both = torch.empty(0)
    several = both.shape == (2, *first.shape[1:])
    if _differ(first, again):
        raise ExportError(
            f"{type(module).__name__} says something else of the same image every time, in eval mode too, so that it cannot be "
            "reproduced. Take the randomness out of its forward()."
        )
    unsettled = [name for name, part in module.named_modules() if _uses_batch(part)]
    if (several and _differ(torch.cat([first, second]), both)) or (unsettled and not several):
        cause = f" ({unsettled[0]!r} normalises by the batch, as it has no running statistics)" if unsettled else ""
        raise ExportError(
            f"What {type(module).__name__} says of an image depends on the other images in its batch{cause}, so that a map of "
            "one image would too. Export a module that looks at each image alone in eval mode."
        )
    return several


def _uses_batch(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.running_mean is None


def _differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether two finite results are further apart than a proof allows."""
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return False
    return bool((a - b).abs().max() > TOLERANCE * max(1.0, float(a.abs().max())))
