"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from camrt.engine import MAX_MASKED_BATCH, MAX_THREADS
from camrt.explainer import DEFAULT_METHOD, Explainer, load
from camrt.photo import MAX_PIXELS
from camrt.providers import NAMES


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `open_explainer` takes."""
    for option in (
        click.option("--threads", type=click.IntRange(0, MAX_THREADS), default=0, help="Threads of one operator; 0 is one per core.", show_default=True),
        click.option("--max-masked-batch", type=click.IntRange(1), default=MAX_MASKED_BATCH, show_default=True, help="Most masked images, edited features or gradients in one call."),
        click.option("--provider", "providers", multiple=True, metavar="NAME", help=f"Execution provider ({', '.join(NAMES)}); several are tried in order.  [default: CUDA if installed, else the CPU]"),
    ):  # fmt: skip
        command = option(command)
    return command


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --method and --param."""
    for option in (
        click.option("-p", "--param", "parameters", multiple=True, metavar="NAME=VALUE", callback=_read_parameters, help="A parameter of the method, for instance clusters=32."),
        click.option("-m", "--method", default=DEFAULT_METHOD, show_default=True, metavar="NAME", help="How the map is computed; see camrt methods (camrt explain: or all, side by side)."),
    ):  # fmt: skip
        command = option(command)
    return command


def _read_parameters(_: click.Context, __: click.Parameter, given: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, equals, _value in pairs:
        if not equals or not name:
            raise click.BadParameter(f"write NAME=VALUE, for instance clusters=32; got {name!r}.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def open_explainer(
    bundle: str, providers: tuple[str, ...], max_masked_batch: int, threads: int, max_pixels: int = MAX_PIXELS
) -> Explainer:
    """Return the explainer of a bundle with the options of the command line."""
    names = list(providers) or None
    return load(bundle, names, max_masked_batch=max_masked_batch, threads=threads, max_pixels=max_pixels)


def printable(text: str) -> str:
    """Return text on one line: control characters, which may come from file names and labels, are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
