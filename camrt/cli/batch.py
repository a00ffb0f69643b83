"""camrt batch: explain photos in bulk into a dataset."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from camrt.cli.options import engine_options, json_option, method_options, printable
from camrt.errors import MethodUnavailable
from camrt.photo import MAX_PIXELS

if TYPE_CHECKING:
    from camrt.scale.batch import Batch, Engine
    from camrt.scale.manifest import Manifest

TERMINATED = 143  # 128 + SIGTERM, as shells say it


@click.command("batch")
@click.argument("bundle")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", required=True, metavar="OUTPUT", help="Folder or URL of the dataset; made where it is missing.")
@click.option("-t", "--target", "targets", multiple=True, metavar="CLASS", help="Class to explain; may be repeated.  [default: the top class]")
@click.option("-n", "--top", type=click.IntRange(1), metavar="N", help="Explain the N most probable classes.")
@click.option("--versus", metavar="CLASS", help="Explain why the target and not CLASS.")
@method_options
@click.option("--overlays", is_flag=True, help="Write each heatmap over its photo, as JPEG, into OUTPUT/overlays.")
@click.option("--column", metavar="NAME", help="Column of a list with the paths, or the images.  [default: path, file, image, …]")
@click.option("--id-column", metavar="NAME", help="Column that names each photo.  [default: id, else the path does]")
@click.option("--root", metavar="DIR", help="Where a list's relative paths start.  [default: the list's own folder]")
@click.option("--shard-size", type=click.IntRange(1), default=1000, show_default=True, help="Photos of a shard: what is lost, at most, when a run is killed.")
@click.option("--max-pixels", type=click.IntRange(1), default=MAX_PIXELS, show_default=True, help="Largest photo that is decoded.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="One machine, or a Ray cluster.")
@click.option("--workers", metavar="MIN:MAX", help="ray: workers, each a process with the model.  [default: 1 to as many as fit]")
@click.option("--gpus-per-worker", type=click.FloatRange(0), help="ray: GPUs, or a share of one.  [default: 1 where the cluster has any, else 0]")
@click.option("--cpus-per-worker", type=click.IntRange(1), help="ray: CPUs, and threads.  [default: 1]")
@click.option("--address", help="ray: of the cluster, HOST:PORT.  [default: $RAY_ADDRESS, else a cluster of this machine alone]")
@click.option("--stall", type=click.FloatRange(0, min_open=True), default=3600.0, show_default=True, metavar="SECONDS", help="A worker that does nothing for so long is taken for dead, and the photo that it hangs on for one that kills.")
@click.option("--verify", is_flag=True, help="Compare the shards that are done with their checksums.")
@click.option("--simulate", is_flag=True, help="Explain nothing: list, schedule, write and go on as ever, with invented results.")
@engine_options
@json_option
def batch(bundle: str, inputs: tuple[str, ...], output: str, engine: str, as_json: bool, **options: Any) -> None:
    """Explain every photo of INPUT with BUNDLE's model into OUTPUT, a dataset of heatmaps.

    An INPUT is a folder, a glob, a list of paths (txt, CSV, Parquet), a tar archive (WebDataset) or a Parquet file of images;
    local, or a URL that fsspec opens. OUTPUT/data holds Parquet files, a row for every photo and class; OUTPUT/manifest.json
    tells what was asked and done. The same command goes on where it was stopped. A photo that cannot be explained is a row
    that says why.

    Example:  camrt batch shapes photos -o heatmaps
    """
    try:
        from camrt.scale.progress import Progress
    except ModuleNotFoundError as error:
        raise lacking(error, "batch") from None
    kind = "json" if as_json else "bar" if sys.stderr.isatty() else "log"
    run, asked = _engine(engine, options), _asked(bundle, inputs, output, options)
    started = time.monotonic()
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        manifest = asked.run(run, Progress(kind, _say(kind)))
    except (KeyboardInterrupt, Terminated) as stop:
        click.echo(f"Stopped. What is done is kept in {output}, and the same command goes on with it.", err=True)
        if isinstance(stop, Terminated):
            sys.exit(TERMINATED)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if kind == "bar":
            click.echo(err=True)
    click.echo(_summary(manifest, output, time.monotonic() - started, as_json))


def _engine(name: str, options: dict[str, Any]) -> Engine:
    """Return the engine, and take its options from the others."""
    given = {key: options.pop(key) for key in ("workers", "gpus_per_worker", "cpus_per_worker", "address")}
    if name == "local":
        from camrt.scale.local import local

        if unused := [f"--{key.replace('_', '-')}" for key, value in given.items() if value is not None]:
            raise click.UsageError(f"{', '.join(unused)}: only --engine ray has workers; local has one, which takes the machine.")
        return local
    from camrt.scale.cluster import Cluster, read_workers

    return Cluster(
        workers=read_workers(given["workers"]), gpus=given["gpus_per_worker"], cpus=given["cpus_per_worker"],
        address=given["address"],
    )  # fmt: skip


def _asked(bundle: str, inputs: tuple[str, ...], output: str, options: dict[str, Any]) -> Batch:
    from camrt.scale.asked import ask
    from camrt.scale.lists import Columns

    columns = Columns(options.pop("column"), options.pop("id_column"), options.pop("root"))
    limit = options.pop("gpu_mem_limit")
    engine = {name: options.pop(name) for name in ("cache", "threads", "max_masked_batch")}
    engine |= {"providers": list(options.pop("providers")) or None, "gpu_mem_limit": None if limit is None else limit << 20}
    targets = list(options.pop("targets")) or None
    return ask(bundle, inputs, output, targets=targets, columns=columns, engine=engine, **options)


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
    from camrt.scale.progress import duration

    values = {
        "event": "summary", "output": output, "photos": manifest.photos, "rows": manifest.rows, "shards": manifest.parts,
        "outcomes": manifest.outcomes, "seconds": round(seconds, 1),
    }  # fmt: skip
    if as_json:
        return json.dumps(values)
    outcomes = ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in manifest.outcomes.items())
    return "\n".join([
        f"{manifest.photos:,} photos, {manifest.rows:,} rows in {manifest.parts:,} shards: {outcomes}",
        f"→ {printable(output)}/data/*.parquet  ({duration(seconds)}; camrt report {printable(output)} shows them)",
    ])


class Terminated(BaseException):
    """SIGTERM came."""


def _terminate(*_: object) -> None:
    raise Terminated


def lacking(error: ModuleNotFoundError, extra: str) -> Exception:
    """Return what to install, unless what is missing is camrt's own."""
    if (error.name or "").partition(".")[0] in ("camrt", "exporters"):
        return error
    return MethodUnavailable(f"This needs the extra {extra} ({error}): pip install 'camrt[{extra}]'.")
