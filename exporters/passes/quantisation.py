"""Read every quantised tensor through one DequantizeLinear, to cut behind; note what takes its scale from the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.graph import describe, rename

if TYPE_CHECKING:
    from exporters.passes import Normal

DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")


def one_dequantiser_each(normal: Normal) -> None:
    """Leave out a DequantizeLinear of what another one reads already, as quantisers write one for every reader."""
    proto = normal.model.graph
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    results = {value.name for value in proto.output}
    kept = []
    for node in proto.node:
        rename(node, same)
        if node.op_type == "DequantizeLinear" and node.output[0] not in results:
            key = (*node.input, *sorted(a.SerializeToString() for a in node.attribute))
            if key in first:
                same[node.output[0]] = first[key]
                continue
            first[key] = node.output[0]
        if node.op_type in DYNAMIC and normal.one_by_one is None:
            normal.one_by_one = f"{describe(node)} takes its scale from the whole batch"
        kept.append(node)
    del proto.node[:]
    proto.node.extend(kept)
