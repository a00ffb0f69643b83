"""The whole explanation as one model: image and targets in; logits, heatmap and outcomes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from camrt import __version__
from camrt.bundle import Bundle
from camrt.compiled import write_entries
from camrt.errors import ParameterError, did_you_mean
from camrt.heatmap import Outcome
from camrt.manifest import Manifest
from camrt.methods import GRADIENTS, Method
from exporters.emitter import Emitter
from exporters.fusion.maps import heatmaps
from exporters.fusion.methods import FUSED, Explained
from exporters.fusion.network import Network, place_weights
from exporters.fusion.pixels import network_input
from exporters.graph import fitting_ir, subgraphs
from exporters.split import PREFIX

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
INPUTS = ("float", "uint8")
LABELS = f"{PREFIX}/labels"  # an output that only the check reads


def fuse(
    bundle: Bundle, black_logits: np.ndarray, method: Method, settings: Mapping[str, Any], *,
    pixels: str, max_masked_batch: int, require_target: bool = False,
) -> ModelProto:  # fmt: skip
    """Return the explanation of a bundle's network as one model.

    Parameters
    ----------
    bundle : Bundle
    black_logits : ndarray of shape (L,)
        What the network says to the black image.
    method : Method
    settings : mapping
        All of the method's parameters.
    pixels : {"float", "uint8"}
        What the input `image` is: preprocessed (N, 3, H, W), or RGB (N, H, W, 3) at the network's size.
    max_masked_batch : int
        Most masked images at once.
    require_target : bool
        The input `target` has no default: ONNX Runtime for JavaScript takes no optional inputs.

    Raises
    ------
    ParameterError
        The method, or a parameter of it, cannot be one graph.
    """
    if method.name not in FUSED:
        raise ParameterError(
            f"{method.name} cannot be compiled into one graph.{did_you_mean(method.name, FUSED)} These can: {', '.join(FUSED)}."
        )
    manifest = bundle.manifest
    parts = ["head", "tail", *(["gradient"] if GRADIENTS in method.needs else [])]
    network = Network(bundle, parts, black_logits, max_masked_batch, "target")
    op = network.op
    image = network_input(op, "image", manifest.preprocess) if pixels == "uint8" else "image"
    explained = FUSED[method.name](op, network, image, **settings)
    outputs = _outputs(op, network, explained, manifest)
    weights = place_weights(op.nodes, network.weights)
    constants = [*weights, *op.initializers]
    constants += [] if require_target else [numpy_helper.from_array(np.array([[-1]]), "target")]
    _strip_names(op.nodes)
    doc = _summary(method, settings)
    graph = helper.make_graph(op.nodes, "camrt", _inputs(manifest, pixels), outputs, constants, doc)
    model = helper.make_model(graph, producer_name="camrt", producer_version=__version__, opset_imports=network.operator_sets)
    model.ir_version = fitting_ir(model)
    return model


def _strip_names(nodes: Iterable[NodeProto]) -> None:
    """Take away the names that the emitter gave; what has one of its own is named to be seen."""
    for node in nodes:
        if node.name == node.output[0]:
            node.ClearField("name")
        for body in subgraphs(node):
            _strip_names(body.node)


def _inputs(manifest: Manifest, pixels: str) -> list[ValueInfoProto]:
    channels, height, width = manifest.image.shape[1:]
    images = "N" if manifest.one_by_one is None else 1
    if pixels == "uint8":
        doc, dtype, shape = "RGB pixels at the network's size", UINT8, (images, height, width, 3)
    else:
        doc, dtype, shape = "preprocessed images", FLOAT, (images, channels, height, width)
    which = "class indices, one row for all images or one each; -1 is the most probable class (the default), -2 the second"
    return [
        helper.make_tensor_value_info("image", dtype, shape, doc),
        helper.make_tensor_value_info("target", INT64, ("1 or N", "T"), which),
    ]


def _outputs(op: Emitter, network: Network, explained: Explained, manifest: Manifest) -> list[ValueInfoProto]:
    """Give what was found its names in the interface."""
    seen = explained.seen
    found = heatmaps(op, explained.signed, seen.finite, seen.flat, network.window)
    p = network.scores(op, op.Unsqueeze(seen.logits, op.constant([1])), seen.targets, "probability")
    codes = ", ".join(f"{outcome.value} {outcome.word}" for outcome in Outcome)
    rows: list[tuple[str, str | None, int, tuple[Any, ...], str]] = [
        ("logits", seen.logits, FLOAT, ("N", manifest.classes), "the network's, of the whole image"),
        ("targets", seen.targets, INT64, ("N", "T"), "indices of the classes that are explained"),
        ("probabilities", op.Squeeze(p, op.constant([1])), FLOAT, ("N", "T"), "of the targets, on the whole image"),
        ("heatmap", found.heatmaps, FLOAT, ("N", "T", *manifest.size), "0 to 1, for every target over the network's input"),
        ("outcomes", found.outcomes, INT64, ("N", "T"), f"{codes}; all but 0 have a heatmap of zeros"),
        ("scores", explained.scores, FLOAT, ("N", "M", "T"), "of the targets, on each masked image or edited features"),
        (LABELS, explained.labels, INT64, ("rows", "C"), ""),
    ]
    rows = [row for row in rows if row[1] is not None]
    for name, tensor, *_ in rows:
        op.nodes.append(helper.make_node("Identity", [tensor], [name]))
    return [helper.make_tensor_value_info(name, dtype, shape, doc) for name, _, dtype, shape, doc in rows]


def drop_labels(model: ModelProto) -> None:
    """Take away the output that only the check reads, in place."""
    for value in [value for value in model.graph.output if value.name == LABELS]:
        model.graph.output.remove(value)
    for node in [node for node in model.graph.node if LABELS in node.output]:
        model.graph.node.remove(node)


def write_metadata(model: ModelProto, bundle: Bundle, method: Method, settings: Mapping[str, Any], **how: Any) -> None:
    """Write into the file's metadata what it is, how it was compiled and how well it agrees, in place."""
    manifest = bundle.manifest
    facts = {
        "version": __version__,
        "bundle": manifest.name,
        "bundle_sha256": bundle.sha256,
        "source": manifest.source.file,
        "source_sha256": manifest.source.sha256,
        "layer": manifest.layer.name,
        "method": method.name,
        "citation": method.citation,
        "parameters": dict(settings),
        "output_kind": manifest.kind,
        "outcomes": [outcome.word for outcome in Outcome],
        "labels": "\n".join(" ".join(label.split()) for label in manifest.labels),
        "preprocess": manifest.preprocess.to_json(),
        **how,
    }
    helper.set_model_props(model, write_entries(facts))


def _summary(method: Method, settings: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"A CNN and where it looked, by {method.name}" + (f" ({chosen})" if chosen else "")
