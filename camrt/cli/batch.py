"""camrt batch: explain photos in bulk into a dataset."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from camrt.__main__ import INTERRUPTED
from camrt.cli.options import (
    engine_options,
    json_option,
    lacking,
    loading,
    max_pixels_option,
    method_options,
    printable,
    target_options,
)
from camrt.markup import several
from camrt.scale.job import SHARD_SIZE, STALL

if TYPE_CHECKING:
    from camrt.scale.batch import Engine
    from camrt.scale.manifest import Manifest
    from camrt.scale.progress import Progress

TERMINATED = 143  # 128 + SIGTERM, as shells say it


@click.command("batch")
@click.argument("bundle")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", required=True, metavar="OUTPUT", help="Folder or URL of the dataset; made where it is missing.")
@target_options
@method_options
@click.option("--overlays", is_flag=True, help="Write each heatmap over its photo, as JPEG, into OUTPUT/overlays.")
@click.option("--column", metavar="NAME", help="Column of a list with the paths, or the images.  [default: path, file, image, …]")
@click.option("--id-column", metavar="NAME", help="Column that names each photo.  [default: id, else the path does]")
@click.option("--root", metavar="DIR", help="Where a list's relative paths start.  [default: the list's own folder]")
@click.option("--shard-size", type=click.IntRange(1), default=SHARD_SIZE, show_default=True, help="Photos of a shard: what is lost, at most, when a run is killed.")
@max_pixels_option
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="One machine, or a Ray cluster.")
@click.option("--workers", metavar="MIN:MAX", help="ray: workers, each a process with the model.  [default: 1 to as many as fit]")
@click.option("--gpus-per-worker", type=click.FloatRange(0), help="ray: GPUs, or a share of one.  [default: 1 where the cluster has any, else 0]")
@click.option("--cpus-per-worker", type=click.IntRange(1), help="ray: CPUs, and threads.  [default: 1]")
@click.option("--address", help="ray: of the cluster, HOST:PORT.  [default: $RAY_ADDRESS, else a cluster of this machine alone]")
@click.option("--stall", type=click.FloatRange(0, min_open=True), default=STALL, show_default=True, metavar="SECONDS", help="A worker that does nothing for so long is taken for dead, and the photo that it hangs on for one that kills.")
@click.option("--verify", is_flag=True, help="Compare the shards that are done with their checksums.")
@click.option("--simulate", is_flag=True, help="Explain nothing: list, schedule, write and go on as ever, with invented results.")
@engine_options
@json_option
def batch(
    bundle: str, inputs: tuple[str, ...], output: str, targets: tuple[str, ...], top: int | None, versus: str | None, method: str,
    parameters: dict[str, str], overlays: bool, column: str | None, id_column: str | None, root: str | None, shard_size: int,
    max_pixels: int, engine: str, workers: str | None, gpus_per_worker: float | None, cpus_per_worker: int | None,
    address: str | None, stall: float, verify: bool, simulate: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Explain every photo of INPUT with BUNDLE's model into OUTPUT, a dataset of heatmaps.

    An INPUT is a folder, a glob, a list of paths (txt, CSV, Parquet), a tar archive (WebDataset) or a Parquet file of images;
    local, or a URL that fsspec opens. OUTPUT/data holds Parquet files, a row for every photo and class; OUTPUT/manifest.json
    tells what was asked and done. The same command goes on where it was stopped. A photo that cannot be explained is a row
    that says why.

    Example:  camrt batch shapes photos -o heatmaps
    """
    if targets and top:
        raise click.UsageError("Give --target or --top, not both.")
    try:
        from camrt.scale.asked import ask
        from camrt.scale.lists import Columns
        from camrt.scale.progress import Progress
    except ModuleNotFoundError as error:
        raise lacking(error, "camrt batch", "batch") from None
    kind = "json" if as_json else "bar" if sys.stderr and sys.stderr.isatty() else "log"
    run = _engine(engine, workers=workers, gpus=gpus_per_worker, cpus=cpus_per_worker, address=address)
    asked = ask(
        bundle, inputs, output, method=method, parameters=parameters, targets=list(targets) or None, top=top, versus=versus,
        overlays=overlays, columns=Columns(column, id_column, root), shard_size=shard_size, max_pixels=max_pixels,
        loading=loading(**options), simulate=simulate, verify=verify, stall=stall,
    )  # fmt: skip
    started = time.monotonic()
    progress = Progress(kind, _say(kind))
    with _told_when_stopped(progress, kind):
        manifest = asked.run(run, progress)
    click.echo(_summary(manifest, output, time.monotonic() - started, as_json))
    if not progress.shards:
        click.echo(f"Nothing was left to do. What was added to INPUT since {manifest.begun} is not in it and needs another OUTPUT.", err=True)


def _engine(name: str, *, workers: str | None, **given: Any) -> Engine:
    """Return the engine of a name, with the options that are its own."""
    if name == "local":
        from camrt.scale.local import local

        if workers is not None or any(value is not None for value in given.values()):
            raise click.UsageError(
                "--workers, --gpus-per-worker, --cpus-per-worker and --address are for --engine ray; local has one worker, which "
                "takes the machine."
            )
        return local
    from camrt.scale.cluster import Cluster, read_workers

    return Cluster(workers=read_workers(workers), **given)


@contextmanager
def _told_when_stopped(progress: Progress, kind: str) -> Iterator[None]:
    """Say what is kept when Ctrl-C or SIGTERM comes, and end with the exit code that shells know."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        click.echo("\n" * (kind == "bar") + f"Stopped: {progress.kept}. The same command goes on.", err=True)
        sys.exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)
    if kind == "bar":
        click.echo(err=True)


def _say(kind: str) -> Callable[[str], None]:
    """Return what takes lines of progress."""
    if kind == "json":
        return lambda line: click.echo(line)
    if kind == "log":
        return lambda line: click.echo(line, err=True)
    width = shutil.get_terminal_size().columns - 1
    return lambda line: click.echo(f"\r{line[:width]:<{width}}", nl=False, err=True)


def _summary(manifest: Manifest, output: str, seconds: float, as_json: bool) -> str:
    """Return what the dataset holds."""
    from camrt.scale.progress import duration, outcomes_told

    values = {
        "event": "summary", "output": output, "photos": manifest.photos, "rows": manifest.rows, "shards": manifest.parts,
        "outcomes": manifest.outcomes, "seconds": round(seconds, 1),
    }  # fmt: skip
    if as_json:
        return json.dumps(values)
    return "\n".join([
        f"{manifest.photos:,} photos, {manifest.rows:,} rows in {several(manifest.parts, 'shard')}: "
        + ", ".join(outcomes_told(manifest.outcomes)),
        f"→ {printable(output)}/data/*.parquet  ({duration(seconds)}; camrt report {printable(output)} shows them)",
    ])


class Terminated(BaseException):
    """SIGTERM came."""


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one would only disturb the end
    raise Terminated
