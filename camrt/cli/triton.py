"""camrt triton: the compiled file in a model repository of Triton Inference Server."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from camrt.cli.making import import_exporters
from camrt.cli.options import json_option, method_options
from camrt.compiled import MASKED_BATCH


@click.command()
@click.argument("bundle")
@click.option("-o", "--repository", required=True, type=click.Path(path_type=Path), metavar="REPOSITORY", help="Folder of models to write into.")
@click.option("--name", help="Name of the model.  [default: the bundle's]")
@click.option("--input", "pixels", type=click.Choice(["uint8", "float"]), default="uint8", show_default=True, help="RGB pixels (N, H, W, 3) at the network's size, or preprocessed (N, C, H, W).")
@click.option("--kind", type=click.Choice(["auto", "gpu", "cpu"]), default="auto", show_default=True, help="Where Triton runs it; auto is on GPUs where there are any.")
@click.option("--max-batch-size", type=click.IntRange(1), help="Most images at once.  [default: 8; none for networks that take one at a time]")
@click.option("--dynamic-batching", is_flag=True, help="Let Triton put requests together; a target that is no class then fails all of them.")
@click.option("--sample", "photos", multiple=True, metavar="PHOTO", help="Photo to prove the file on, besides the fixed set; may be repeated.")
@click.option("--max-masked-batch", type=click.IntRange(1), default=MASKED_BATCH, show_default=True, help="Most masked images at once.")
@click.option("--force", is_flag=True, help="Replace the model that exists.")
@method_options
@json_option
def triton(
    bundle: str, repository: Path, name: str | None, pixels: str, kind: str, max_batch_size: int | None, dynamic_batching: bool,
    photos: tuple[str, ...], max_masked_batch: int, force: bool, method: str, parameters: dict[str, str], as_json: bool,
) -> None:  # fmt: skip
    """Write BUNDLE's network and its explanation as a model of Triton Inference Server.

    Image and target in; logits, heatmap and outcomes out, by Triton's ONNX Runtime backend, without camrt. REPOSITORY/NAME gets
    config.pbtxt, labels.txt and 1/model.onnx, the file of camrt compile; it is written only when its heatmaps are the Python
    runtime's.

    Example:  camrt triton bundle -o repository
    """
    import_exporters()
    from exporters.triton import write_model

    compiled = write_model(
        bundle, repository, name=name, pixels=pixels, kind=kind, max_batch_size=max_batch_size, dynamic_batching=dynamic_batching,
        photos=photos, max_masked_batch=max_masked_batch, force=force, method=method, **parameters,
        progress=lambda step: click.echo(f"{step} …", err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(compiled.to_json(), ensure_ascii=False))
        return
    click.echo(f"{compiled.path}: {compiled.size / 1e6:.2f} MB, {compiled.growth} more than the network")
    click.echo(compiled.built.agreement.verdict)
    click.echo(f"\nServe it:  tritonserver --model-repository {shlex.quote(str(repository.absolute()))}")
