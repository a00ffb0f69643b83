"""exporters.limits: what native code would read without looking is looked at first."""

from __future__ import annotations

import pytest
from onnx import TypeProto, helper

from camrt.errors import ExportError
from exporters.limits import check_attributes
from tests import graphs


def test_an_attribute_of_another_type_than_its_operator_has_is_refused_before_native_code_reads_it():
    built = graphs.classifier(opset=8)
    upsample = helper.make_node("Upsample", ["c1"], ["u"], name="up", mode="nearest")
    upsample.attribute.append(helper.make_attribute("scales", TypeProto()))
    built.graph.node.append(upsample)
    with pytest.raises(ExportError, match="The attribute 'scales' of Upsample 'up' is TYPE_PROTO, where opset 8 has FLOATS"):
        check_attributes(built)


@pytest.mark.parametrize("opset", [-1, 7, 9, 13, 21, 1 << 40])
def test_attributes_as_their_operators_have_them_pass(opset):
    built = graphs.classifier()
    built.opset_import[0].version = opset
    check_attributes(built)
