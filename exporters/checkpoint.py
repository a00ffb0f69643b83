"""Load a checkpoint into a module: its weights among what else training saved, without the prefixes that wrappers leave."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from camrt.errors import ExportError, one_line
from camrt.files import open_regular
from exporters.torchfile import PROGRAM, TORCHSCRIPT, kind_of

State = Mapping[str, torch.Tensor]

AVERAGE = re.compile(r"(^|_)(ema|swa|average|averaged)(_|$)")  # in the key of weights that are averaged over the training
NO_WEIGHTS = re.compile(r"optim|sched|scaler|amp|callback|loop|hyper|args|config")  # at the start of a key, or behind "lr_"
DEPTH = 3  # how deep weights lie in a checkpoint at most
NAMED = 3  # keys that a message names of each kind
EXTRA = "_extra_state"  # of modules that keep more than tensors
COUNTER = "num_batches_tracked"  # of a BatchNorm; checkpoints of before PyTorch 0.4.1 lack it


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load the weights of a file into a module, in place.

    Raises
    ------
    ExportError
        The file cannot be read, holds no weights, or others than the module's.
    """
    found = dict(find_weights(_read(path)))
    if not found:
        raise ExportError(f"{path} holds no weights: no mapping of names to tensors. Save model.state_dict().")
    state = _fitting(_choose(found, module, path), module, path)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        found_wrong = _differences(_nearest(state, module), module) or one_line(error)
        raise ExportError(f"{path} does not fit {type(module).__name__}: {found_wrong}") from None


def find_weights(value: object, key: str = "", depth: int = DEPTH) -> Iterator[tuple[str, State]]:
    """Yield every mapping of names to tensors in a checkpoint, with its place in it, such as "state_dict"."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        return
    tensors = {name: part for name, part in value.items() if not name.endswith(EXTRA)}
    if tensors and all(isinstance(part, torch.Tensor) for part in tensors.values()):
        yield key, value
    elif depth:
        for name, part in value.items():
            if not NO_WEIGHTS.match(name.removeprefix("lr_")):
                yield from find_weights(part, f"{key}.{name}" if key else name, depth - 1)


# --- steps --------------------------------------------------------------------------------------------------------------
def _read(path: Path) -> object:
    kind = kind_of(path)
    if kind == TORCHSCRIPT:
        raise ExportError(
            f"{path} is TorchScript, which holds code beside its weights and is not loaded. Save the weights of the module "
            "that it was made from: torch.save(model.state_dict(), …)."
        )
    if kind == PROGRAM:
        raise ExportError(f"{path} is a program of torch.export.save, with its own weights. Give it alone, without a factory.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts keep their arguments beside the weights
            with open_regular(path) as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except ImportError:
        raise ExportError("Reading .safetensors needs its package: pip install safetensors") from None
    except Exception as error:  # torch, pickle and safetensors raise several types of their own
        raise ExportError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: there is no such file. Give the checkpoint with --weights."
    foreign = re.search(r"Unsupported (?:global|class|operand): (?:GLOBAL )?([\w.]+)", str(error))
    if foreign is None:
        return f"{path}: no readable state dict ({one_line(error)}). Save one with torch.save(model.state_dict(), …)."
    return (
        f"{path}: no readable state dict: it is a pickle that would run {foreign[1]}, and nothing in a file is run. Where you "
        "trust it, load it in a program of your own and save its weights alone: torch.save(model.state_dict(), …)."
    )


def _choose(found: Mapping[str, State], module: torch.nn.Module, path: Path) -> State:
    """Return the plain weights; where there are several, those that have the module's names."""
    plain = {key: state for key, state in found.items() if not _averaged(key)}
    average = sorted(found.keys() - plain.keys())
    fitting = {key: state for key, state in (plain or found).items() if _prefixes(state, module)}
    chosen = fitting if len(plain or found) > 1 else plain or found
    if len(chosen) != 1:
        several = ", ".join(f"{key!r} ({len(state)} tensors)" for key, state in (plain or found).items())
        what = "several fit" if chosen else "none fits"
        raise ExportError(
            f"{path} holds several weights, {several}, and {what} {type(module).__name__}. Save the right ones alone: "
            "torch.save(checkpoint[NAME], …)."
        )
    ((key, state),) = chosen.items()
    if average and plain:
        warnings.warn(
            f"{path} holds weights, {key!r}, and their average over the training, {average[0]!r}. The weights were taken, not "
            "the average; for it, save it alone.",
            UserWarning,
            stacklevel=7,
        )
    return state


def _averaged(key: str) -> bool:
    return any(AVERAGE.search(part) for part in key.split("."))


def _fitting(state: State, module: torch.nn.Module, path: Path) -> dict[str, object]:
    """Return the weights under the module's names where a prefix hides them, else as they are."""
    prefixes = _prefixes(state, module)
    plain = [prefix for prefix in prefixes if not _averaged(prefix)] or prefixes
    if not prefixes or _wanted(module) <= state.keys():
        return dict(state)
    if len(plain) > 1:
        several = ", ".join(map(repr, plain))
        raise ExportError(f"{path} holds weights for {type(module).__name__} under {several}. Save the right ones alone.")
    (prefix,) = plain
    clean = _without_compile(state)
    left = [name for name in clean if not name.startswith(prefix) and name != "n_averaged"]
    if left:
        warnings.warn(
            f"{path}: the weights under {prefix!r} were taken, not {_some(left)}, which the module has no place for.",
            UserWarning,
            stacklevel=7,
        )
    return {name.removeprefix(prefix): part for name, part in clean.items() if name.startswith(prefix)}


def _prefixes(state: State, module: torch.nn.Module) -> list[str]:
    """Return what stands before the module's names in the weights; nothing where they are not all there."""
    wanted, names = _wanted(module), _without_compile(state).keys()
    if not wanted or wanted <= state.keys():
        return [""]
    one = min(wanted)
    possible = {name.removesuffix(one) for name in names if name == one or name.endswith(f".{one}")}
    return sorted(prefix for prefix in possible if {prefix + name for name in wanted} <= names)


def _wanted(module: torch.nn.Module) -> set[str]:
    return {name for name in module.state_dict() if not name.endswith((COUNTER, EXTRA))}


def _without_compile(state: Mapping[str, object]) -> dict[str, object]:
    """Return the weights without the step that torch.compile puts into their names, wherever it stands."""
    return {name.replace("_orig_mod.", ""): part for name, part in state.items()}


def _nearest(state: Mapping[str, object], module: torch.nn.Module) -> Mapping[str, object]:
    """Return the weights without what stands before all their names where more of them are the module's then."""
    clean, own = _without_compile(state), module.state_dict().keys()
    first, last = min(clean).split("."), max(clean).split(".")
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    shorter = {".".join(name.split(".")[shared:]): part for name, part in clean.items()}
    return max(state, clean, shorter, key=lambda names: len(names.keys() & own))


def _differences(state: Mapping[str, object], module: torch.nn.Module) -> str:
    """Say which names and shapes differ; an empty text where none do."""
    own = module.state_dict()
    missing, unexpected = sorted(_wanted(module) - state.keys()), sorted(state.keys() - own.keys())
    shapes = {
        name: f"{name} is {_shape(part)}, the module's {_shape(own[name])}"
        for name, part in state.items()
        if name in own and isinstance(part, torch.Tensor) and part.shape != own[name].shape
    }
    found = [f"{len(missing)} of {len(own)} are missing ({_some(missing)})"] if missing else []
    found += [f"{len(unexpected)} are unexpected ({_some(unexpected)})"] if unexpected else []
    found += [f"{len(shapes)} of other shape ({_some(shapes.values(), '; ')})"] if shapes else []
    if not found:
        return ""
    advice = "Does the factory make as many classes and channels?" if not missing and not unexpected else "Is it its factory?"
    return f"of the weights {', '.join(found)}. {advice}"


def _some(names: Iterable[str], between: str = ", ") -> str:
    """Return the first few names, and how many others there are."""
    every = list(names)
    others = f"{between}and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return between.join(every[:NAMED]) + others


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
