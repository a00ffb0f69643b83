"""exporters.passes.opset: models of old opsets are raised, newer ones stay."""

from __future__ import annotations

import pytest

from exporters.graph import opset
from exporters.passes import Normal
from exporters.passes.opset import raise_opset
from tests import graphs
from tests.exporters.helpers import assert_refused


@pytest.mark.parametrize("version", [7, 9, 11, 12])
def test_old_opsets_are_raised(version):
    found = Normal(graphs.classifier(opset=version))
    raise_opset(found)
    assert opset(found.model) == 13


@pytest.mark.parametrize("version", [13, 15, 17, 18, 21])
def test_newer_opsets_stay(version):
    found = Normal(graphs.classifier(opset=version))
    raise_opset(found)
    assert found.model == graphs.classifier(opset=version)


def test_an_operator_that_cannot_be_raised_is_named():
    built = graphs.parse("s = Scan <body = g () => () {}> (x)  scores = Flatten (s)", opset=8)
    assert_refused(built, "has opset 8, which cannot be raised to 13: .*Convert it with the tool")
