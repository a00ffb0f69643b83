"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from camrt.engine import MAX_THREADS
from camrt.errors import MethodUnavailable
from camrt.explainer import DEFAULT_METHOD, Explainer, load
from camrt.photo import MAX_PIXELS
from camrt.providers import NAMES


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `open_explainer` takes."""
    for option in (
        click.option("--cache/--no-cache", default=True, show_default=True, help="Keep optimised graphs in BUNDLE.cache, beside the bundle."),
        click.option("--gpu-mem-limit", type=click.IntRange(1), metavar="MB", help="GPU memory for each graph's arena, with cuda and tensorrt."),
        click.option("--threads", type=click.IntRange(0, MAX_THREADS), default=0, help="Threads of one operator; 0 is one per core.", show_default=True),
        click.option("--max-masked-batch", type=click.IntRange(1), help="Most masked images, edited features or gradients in one call.  [default: 64 with CUDA and TensorRT, else 5]"),
        click.option("--provider", "providers", multiple=True, metavar="NAME", help=f"Execution provider ({', '.join(NAMES)}); several are tried in order.  [default: CUDA if installed, else the CPU]"),
    ):  # fmt: skip
        command = option(command)
    return command


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --target, --top and --versus."""
    for option in (
        click.option("--versus", metavar="CLASS", help="Explain why the target and not CLASS."),
        click.option("-n", "--top", type=click.IntRange(1), metavar="N", help="Explain the N most probable classes."),
        click.option("-t", "--target", "targets", multiple=True, metavar="CLASS", help="Class index, name or synonym; may be repeated.  [default: the top class]"),
    ):  # fmt: skip
        command = option(command)
    return command


def max_pixels_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --max-pixels."""
    return click.option(
        "--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, show_default=True, help="Largest photo that is decoded."
    )(command)


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --method and --param."""
    return click.option(
        "-m", "--method", default=DEFAULT_METHOD, show_default=True, metavar="NAME",
        help="How the map is computed; see camrt methods (camrt explain: or all, side by side).",
    )(parameter_option(command))  # fmt: skip


def parameter_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --param."""
    return click.option(
        "-p", "--param", "parameters", multiple=True, metavar="NAME=VALUE", callback=_read_parameters,
        help="A parameter of the method, for instance clusters=32.",
    )(command)  # fmt: skip


def _read_parameters(_: click.Context, __: click.Parameter, given: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, equals, _value in pairs:
        if not equals or not name:
            raise click.BadParameter(f"write NAME=VALUE, for instance clusters=32; got {name!r}.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def open_explainer(bundle: str, max_pixels: int = MAX_PIXELS, **options: Any) -> Explainer:
    """Return the explainer of a bundle with the options that `engine_options` adds."""
    return load(bundle, max_pixels=max_pixels, **loading(**options))


def loading(*, providers: tuple[str, ...], gpu_mem_limit: int | None, **options: Any) -> dict[str, Any]:
    """Return what `camrt.load` takes for the options that `engine_options` adds."""
    limit = None if gpu_mem_limit is None else gpu_mem_limit << 20
    return {"providers": list(providers) or None, "gpu_mem_limit": limit, **options}


def lacking(error: ModuleNotFoundError, command: str, extra: str) -> Exception:
    """Return what to install for a command, unless what is missing is camrt's own."""
    if (error.name or "").partition(".")[0] in ("camrt", "exporters"):
        return error
    return MethodUnavailable(f"{command} needs the extra {extra} ({error}): pip install 'camrt[{extra}]'.")


def printable(text: str) -> str:
    """Return text on one line: control characters, which may come from file names and labels, are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
