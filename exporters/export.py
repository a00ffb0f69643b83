"""Make a bundle: read the source, bring it to normal form, choose the layer, cut, prove, write."""

from __future__ import annotations

import copy
import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camrt import __version__
from camrt.errors import CamrtError, ExportError, did_you_mean, one_line
from camrt.files import sha256_of
from camrt.manifest import KINDS, MANIFEST, Layer, Manifest, Source, Tensor
from camrt.preprocess import Preprocess
from camrt.table import is_text
from exporters.fidelity import patterns
from exporters.graph import Graph
from exporters.half import Half
from exporters.labels import read_labels
from exporters.layers import AUTO, LayerChoice, check_no_tokens, find_layer, list_layers
from exporters.parts import prove_cuts, write_cuts
from exporters.passes import Normal, normalise
from exporters.precision import AS_SOURCE, FP16, PRECISIONS
from exporters.preprocessing import settle_preprocess
from exporters.proof import Reference, ask, finite_images, kind_before, onnx_reference, output_kind
from exporters.source import SourceModel, read_source
from exporters.split import FEATURES, IMAGE, LOGITS, Shapes, bridge, rename_interface
from exporters.target import check_target, move_into_place

PATTERNS = "pattern"  # the kind of image on which heatmaps are compared


@dataclass(frozen=True)
class Prepared:
    """A source in normal form, ready to be looked at or cut."""

    source: SourceModel
    normal: Normal
    graph: Graph


def layers(
    source: Any, *, weights: str | Path | None = None, size: tuple[int, int] | None = None, output: str | None = None
) -> list[LayerChoice]:
    """Return where a model can be cut, best first.

    Parameters are those of `export`.

    Raises
    ------
    ExportError
        The model cannot be read, or nothing in it separates the image from the scores.
    """
    prepared = _prepare(source, weights, size, output)
    found = list_layers(prepared.graph, prepared.normal.image, prepared.normal.logits)
    check_no_tokens(prepared.graph, found[0], prepared.normal.image, prepared.normal.logits)
    return found


def export(
    source: Any,
    target: str | Path,
    *,
    layer: str = AUTO,
    labels: str | Path | Sequence[str] | None = None,
    preprocess: Preprocess | Mapping[str, Any] | str | Path | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    size: tuple[int, int] | None = None,
    output: str | None = None,
    kind: str = AUTO,
    precision: str = AS_SOURCE,
    name: str | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Cut a CNN into a bundle.

    Parameters
    ----------
    source : path, str or nn.Module
        An .onnx file; "package.module:factory", called without arguments; or a module in memory.
    target : path
        The folder to write.  It appears whole or not at all.
    layer : str, default "auto"
        Tensor name, node name or PyTorch module path.
    labels : path or sequence of str, optional
        A .txt with one label a line, or a .json list or dict; as many as there are classes.  By default those of a ZipMap
        behind the scores, where there is one.
    preprocess : Preprocess, mapping or path of a JSON file, optional
        The `preprocess` block of bundle.json as an object, a mapping, or a JSON file that is one or holds one under that key.
    preset : {"imagenet"}, optional
        The preprocessing to start from; by default the photo is squashed to H × W, RGB, pixel / 255.
    overrides : mapping, optional
        Single values of the preprocessing: scale, mean, std, resize, crop, color, interpolation.
    weights : path, optional
        State dict (.pt, .pth, .safetensors) for a factory.
    size : (int, int), optional
        Height and width, for PyTorch (default 224 × 224) and for models that leave them open.
    output : str, optional
        The output to explain, where there are several.
    kind : {"auto", "logits", "probabilities", "sigmoid", "scores"}
        What the output is.  "auto" says logits before a Softmax that was cut off, sigmoid before a Sigmoid, probabilities
        where the outputs are positive and sum to 1, scores where they lie in [0, 1] and do not, else logits.
    precision : {"fp32", "fp16"}
        "fp16" turns a float32 network into one that computes in float16, and measures what that changes; "fp32" leaves
        a network as it is.
    name : str, optional
        The bundle's name; by default the folder's.
    force : bool
        Replace an existing bundle.
    progress : callable, optional
        Called with the name of each step.

    Raises
    ------
    ExportError
        The model cannot be cut there, the split does not reproduce it, float16 changes too much, or the target exists.
    """
    target = Path(target).resolve()  # a link is followed, so that what it names is what is replaced
    check_target(target, force)
    if not is_text(name or target.name):
        raise ExportError(f"The name {name or target.name!r} cannot be written as UTF-8. Give another with --name.")
    if precision not in PRECISIONS:
        raise ExportError(
            f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.{did_you_mean(str(precision), PRECISIONS)}"
        )
    progress("read")
    prepared = _prepare(source, weights, size, output)
    normal, graph = prepared.normal, prepared.graph
    _check_kind(kind, normal.activation)
    choice = find_layer(graph, normal.image, normal.logits, layer, prepared.source.name)
    shapes = _shapes(graph, normal, choice)
    chosen = settle_preprocess(preprocess, preset, overrides, shapes.image, normal.border)
    names = read_labels(labels, shapes.classes)
    if labels is None and len(normal.names) == shapes.classes:
        names = normal.names

    beside = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    exact = beside.with_suffix(".float32") if precision == FP16 else beside  # the graphs that float16 is compared with
    try:
        half = Half.of(graph, normal.image, normal.logits) if precision == FP16 else None
        rename_interface(normal.model, normal.image, bridge(normal.model, choice.tensor), normal.logits)
        whole = normal.graph()
        beside.mkdir(parents=True)
        cut = write_cuts(exact, whole, shapes, progress)
        progress("prove")
        reference, activation = _reference(prepared)
        answers = ask(reference, chosen, normal.border)
        written = prove_cuts(exact, whole, cut, answers, activation, choice.tensor, one_by_one=normal.one_by_one is not None)
        kind = kind if kind != AUTO else output_kind(answers, normal.activation)
        lost = None
        if half is not None:
            images = finite_images(answers) | {PATTERNS: normal.border.reachable(patterns(chosen))}
            skipped = written.split.skipped
            written, lost = half.write(beside, exact, choice.tensor, shapes, images, PATTERNS, kind, progress)
            written = replace(written, split=replace(written.split, skipped=skipped))
        manifest = Manifest(
            name=name or target.name,
            source=_provenance(prepared.source),
            layer=Layer(choice.tensor, choice.operator, choice.reason, choice.module),
            image=Tensor(IMAGE, (-1, *shapes.image)),
            features=Tensor(FEATURES, (-1, *shapes.features)),
            output=Tensor(LOGITS, (-1, shapes.classes)),
            kind=kind,
            activation=normal.activation,
            labels=names,
            preprocess=chosen,
            split=written.split,
            one_by_one=normal.one_by_one,
            gradient_missing=written.gradient_missing,
            gradient_error=written.gradient_error,
            weights=written.weights,
            files={path.name: sha256_of(path) for path in sorted(beside.iterdir())},
            precision=lost,
        )
        progress("write")
        text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False)
        (beside / MANIFEST).write_text(text + "\n", encoding="utf-8")
        move_into_place(beside, target)
    except OSError as error:
        raise ExportError(f"{target}: the bundle cannot be written ({error.strerror or error}); nothing was changed.") from None
    except (CamrtError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(prepared.source, error) from error
    finally:
        for folder in (exact, beside):
            shutil.rmtree(folder, ignore_errors=True)
    return manifest


# --- steps --------------------------------------------------------------------------------------------------------------
def _prepare(source: Any, weights: str | Path | None, size: tuple[int, int] | None, output: str | None) -> Prepared:
    found = read_source(source, weights, size)
    normal = Normal(copy.deepcopy(found.model), size, output)
    try:
        normalise(normal)
    except ExportError:
        raise
    except Exception as error:
        raise _damaged(found, error) from error
    return Prepared(found, normal, normal.graph())


def _damaged(source: SourceModel, error: Exception) -> ExportError:
    """Return the refusal of a damaged model, which fails wherever its damage is met first."""
    return ExportError(
        f"{source.name} is damaged, or not what ONNX allows ({type(error).__name__}: {one_line(error)}). Export the model "
        "again, or look at it with onnx.checker.check_model."
    )


def _shapes(graph: Graph, normal: Normal, choice: LayerChoice) -> Shapes:
    (_, image), (_, logits) = graph.shapes[normal.image], graph.shapes[normal.logits]
    channels, height, width, classes = (d for d in (*image[1:], logits[1]) if isinstance(d, int))
    return Shapes((channels, height, width), choice.shape, classes)


def _provenance(source: SourceModel) -> Source:
    producer = f"{source.model.producer_name} {source.model.producer_version}".strip()
    return Source(source.file, source.sha256, f"camrt {__version__}", producer)


def _reference(prepared: Prepared) -> tuple[Reference, str | None]:
    """Return the source as a function, and the activation that it applies to the logits."""
    source, normal = prepared.source, prepared.normal
    judge = source.reference
    if judge is not None and normal.source_output == source.model.graph.output[0].name:
        return lambda x: judge(normal.border.source_input(x)), normal.activation
    inside = {name for node in source.model.graph.node for name in node.output}
    if normal.raw_logits in inside:
        return onnx_reference(source.model, normal, normal.raw_logits), None
    return onnx_reference(source.model, normal, normal.source_output), normal.activation


def _check_kind(kind: str, activation: str | None) -> None:
    if kind not in (AUTO, *KINDS):
        raise ExportError(f"kind must be one of {', '.join((AUTO, *KINDS))}, got {kind!r}.{did_you_mean(kind, KINDS)}")
    if activation is not None and kind not in (AUTO, cut := kind_before(activation)):
        raise ExportError(
            f"kind is {kind!r}, but the model ends in {activation}, which is cut off, so that its output is {cut!r}. "
            "Leave out --kind."
        )
