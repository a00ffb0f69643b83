"""camrt compile: one file that explains itself, and a web page around it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from camrt.cli.making import import_exporters
from camrt.cli.options import json_option, method_options
from camrt.compiled import MASKED_BATCH


@click.command("compile")
@click.argument("bundle")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), metavar="FILE", help="ONNX file to write.")
@click.option(
    "--web",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write a web page into that explains photos in the browser.",
)
@click.option(
    "--input",
    "pixels",
    type=click.Choice(["float", "uint8"]),
    help="Preprocessed (N, C, H, W), or RGB pixels (N, H, W, 3) at the network's size.  [default: float]",
)
@click.option(
    "--require-target",
    is_flag=True,
    help="Give the input target no default; ONNX Runtime for JavaScript takes no optional inputs.",
)
@click.option(
    "--sample",
    "photos",
    multiple=True,
    metavar="PHOTO",
    help="Photo to prove the file on, besides the fixed set; may be repeated.",
)
@click.option(
    "--max-masked-batch",
    type=click.IntRange(1),
    default=MASKED_BATCH,
    show_default=True,
    help="Most masked images at once.",
)
@click.option("--force", is_flag=True, help="Replace what exists.")
@method_options
@json_option
def compile_(
    bundle: str, target: Path | None, web: Path | None, pixels: str | None, photos: tuple[str, ...], max_masked_batch: int, force: bool,
    require_target: bool, method: str, parameters: dict[str, str], as_json: bool,
) -> None:  # fmt: skip
    """Write BUNDLE's network and its explanation as one ONNX file.

    Image in; logits, heatmap and outcomes out, in standard operators: it runs wherever ONNX Runtime runs, from C, C++, C#,
    Java, JavaScript or Rust, without camrt.  With --web also a static page that runs it in the browser.  The file is written
    only when its heatmaps are the Python runtime's.

    Example:  camrt compile bundle -o model.explain.onnx --input uint8
    """
    if target is None and web is None:
        raise click.UsageError("Say what to write: -o FILE, --web DIR, or both.")
    if target is None and (pixels or require_target):
        raise click.UsageError("--input and --require-target are for the file of -o; that of a page has uint8 and a target.")
    exporters = import_exporters()
    if target and web and target.resolve() == (web / exporters.page.MODEL).resolve():
        raise click.UsageError(f"The page has its own {exporters.page.MODEL}. Give another name, or leave out -o.")
    options: dict[str, Any] = {
        "method": method, "max_masked_batch": max_masked_batch, "photos": photos, "force": force, **parameters,
        "progress": lambda step: click.echo(f"{step} …", err=True),
    }  # fmt: skip
    written = []
    if target:
        asked = {"pixels": pixels or "float", "require_target": require_target}
        written.append(exporters.compile_bundle(bundle, target, **asked, **options))
    if web:
        written.append(exporters.write_page(bundle, web, **options))
    for compiled in written:
        if as_json:
            click.echo(json.dumps(compiled.to_json(), ensure_ascii=False))
            continue
        click.echo(f"{compiled.path}: {compiled.size / 1e6:.2f} MB, {compiled.growth} more than the network")
        click.echo(compiled.built.agreement.verdict)
    if web and not as_json:
        page = exporters.page
        told = "Fetch ONNX Runtime for browsers into it, and serve it from any static host:"
        click.echo(f"\n{told}\n\ncd {shlex.quote(str(web))}\n{page.FETCH}\n{page.SERVE}")
