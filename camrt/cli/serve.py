"""camrt serve: prediction and heatmap from one call, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from camrt.cli.options import engine_options, lacking, open_explainer
from camrt.errors import ParameterError
from camrt.files import read_regular
from camrt.server.options import MIB, Options, read_methods
from camrt.server.samples import find_samples

MAX_TOKENS = 1 << 20  # bytes of a file of tokens
TOKENS = "CAMRT_TOKENS"  # the environment's variable
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT = Options()
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("serve")
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one.")
@click.option(
    "--token-file", type=FILE, metavar="FILE", help=f"Bearer tokens of 16 characters or more, one a line; or in the environment, {TOKENS}, with commas."
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name by which the server may be addressed.  [default: on loopback its own, else any]",
)
@click.option(
    "--methods",
    default="fast",
    show_default=True,
    metavar="NAMES",
    help="Methods to offer: names with commas, fast, or all; fast leaves out Score-CAM and RISE.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=DEFAULT.timeout,
    show_default=True,
    help="Seconds for a request, first byte to last.",
)
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=DEFAULT.requests,
    show_default=True,
    help="Requests under way at once; more are answered 503.",
)
@click.option(
    "--per-client",
    type=click.IntRange(0),
    default=DEFAULT.per_client,
    show_default=True,
    help="Of one client; 0 is no limit, for instance behind a proxy.",
)
@click.option(
    "--max-body", type=click.IntRange(1), default=DEFAULT.max_body // MIB, show_default=True, metavar="MB", help="Largest body."
)
@click.option(
    "--max-pixels", type=click.IntRange(1), default=DEFAULT.max_pixels, show_default=True, help="Largest photo that is decoded."
)
@click.option(
    "--max-targets", type=click.IntRange(1), default=DEFAULT.max_targets, show_default=True, help="Classes of one request."
)
@click.option(
    "--max-clusters",
    type=click.IntRange(1),
    default=DEFAULT.max_clusters,
    show_default=True,
    help="Clusters or groups of one request.",
)
@click.option(
    "--delay",
    type=click.FloatRange(0, 1000),
    default=DEFAULT.delay * 1e3,
    show_default=True,
    metavar="MS",
    help="How long an idle worker waits for images that share a batch.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Groups of images explained at a time.  [default: 1 on the CPU, 3 on a GPU]"
)
@click.option(
    "--samples",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Photos for the page.  [default: those of the built-in bundle]",
)
@click.option("--read-only", is_flag=True, help="Write nothing beside bundles; load and unload none by request.")
@engine_options
def serve(
    bundles: tuple[str, ...], host: str, port: int, token_file: Path | None, hosts: tuple[str, ...], methods: str, timeout: float,
    requests: int, per_client: int, max_body: int, max_pixels: int, max_targets: int, max_clusters: int, delay: float,
    workers: int | None, samples: Path | None, read_only: bool, cache: bool, **engine: Any,
) -> None:  # fmt: skip
    """Serve predictions and heatmaps of each BUNDLE over HTTP: a page at /, POST /v1/explain, the Open Inference Protocol at /v2.

    A BUNDLE is a folder or a built-in name, perhaps with a name of its own before it: cats=bundles/cats. Requests name it; the
    first answers those which name none. Logs go to stderr, one JSON object a line.

    Example:  camrt serve shapes --port 8080
    """
    try:
        from camrt.server.run import serve as run
        from camrt.server.service import Service
    except ModuleNotFoundError as error:
        raise lacking(error, "camrt serve", "serve") from None
    options = Options(
        methods=read_methods(methods), timeout=timeout, requests=requests, per_client=per_client, max_body=max_body * MIB,
        max_uploads=max(DEFAULT.max_uploads, max_body * MIB), max_pixels=max_pixels,
        max_decoded=max(DEFAULT.max_decoded, 3 * max_pixels), max_targets=max_targets, max_clusters=max_clusters,
        delay=delay / 1e3, workers=workers, tokens=_tokens(token_file), hosts=_hosts(host, hosts), read_only=read_only,
        samples=find_samples(samples),
    )  # fmt: skip
    if host not in LOOPBACK and not options.tokens:
        click.echo(f"Warning: everyone who reaches {host} may ask this server. --token-file wants a token of them.", err=True)
    opened = {
        name: partial(open_explainer, bundle, max_pixels, cache=cache and not read_only, **engine)
        for name, bundle in _named(bundles)
    }
    run(Service(opened, options), host, port, lambda url: click.echo(f"Serving {', '.join(opened)} at {url}", err=True))


def _named(bundles: Iterable[str]) -> list[tuple[str, str]]:
    """Return a name and a location for every bundle."""
    found: dict[str, str] = {}
    for given in bundles:
        name, equals, location = given.partition("=")
        if not equals or not name or "/" in name or os.sep in name:
            name, location = Path(os.path.abspath(given)).name, given
        if name in found:
            raise ParameterError(f"Two bundles are called {name!r}. Give one another name: other={location}.")
        found[name] = location
    return list(found.items())


def _tokens(file: Path | None) -> tuple[str, ...]:
    """Return the tokens of a file, and those of the environment."""
    try:
        told = read_regular(file, MAX_TOKENS).decode().splitlines() if file else []
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{file} cannot be read as a list of tokens: {getattr(error, 'strerror', None) or error}.") from None
    tokens = tuple(dict.fromkeys(t.strip() for t in [*told, *os.environ.get(TOKENS, "").split(",")] if t.strip()))
    if file and not tokens:
        raise ParameterError(f"{file} holds no token. Write one a line, for instance from: openssl rand -hex 32.")
    if weak := [t for t in tokens if len(t) < 16 or not t.isascii() or not t.isprintable() or " " in t]:
        raise ParameterError(
            f"{len(weak)} of {len(tokens)} tokens are too short or hold other than plain characters; take 16 or more, for instance from: openssl rand -hex 32."
        )
    return tokens


def _hosts(host: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names by which the server may be addressed."""
    return (*LOOPBACK, *given) if host in LOOPBACK else given and (*LOOPBACK, host, *given)
