"""camrt.question: what is asked is checked before any image is looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camrt.errors import ParameterError
from camrt.methods import get_method
from camrt.question import Question, read_question

LOGITS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.floats(width=32))


def question(classes: list[int] | int) -> Question:
    return Question(get_method("grad-cam"), {}, classes, None)


@given(LOGITS, st.integers(1, 9))
@example(np.array([[np.nan, -np.inf]], np.float32), 1)
def test_the_most_probable_classes_come_by_falling_logit_and_no_number_comes_last(logits, top):
    for row, found in zip(logits, question(top).targets(logits), strict=True):
        keys = [(bool(np.isnan(value)), 0 if np.isnan(value) else -value, i) for i, value in enumerate(row)]
        assert found.tolist() == [i for *_, i in sorted(keys)][:top]


@pytest.mark.parametrize(("logits", "order"), [
    ([-1, np.nan, -2], [0, 2, 1]), ([np.nan, -np.inf, np.inf], [2, 1, 0]), ([np.nan, np.nan], [0, 1]),
    ([np.finfo(np.float32).max, np.inf], [1, 0]),
])  # fmt: skip
def test_what_is_no_number_comes_last_and_infinity_first(logits, order):
    assert question(9).targets(np.array([logits], np.float32)).tolist() == [order]


def test_of_equal_logits_the_lowest_index_comes_first():
    assert question(3).targets(np.array([[1, 2, 2, 0, 2]], np.float32)).tolist() == [[1, 2, 4]]


def test_given_classes_are_every_images_in_their_order():
    assert question([4, 0, 4]).targets(np.zeros((2, 5), np.float32)).tolist() == [[4, 0, 4]] * 2


def test_one_is_asked_about_the_top_class_by_default(tiny):
    asked = read_question(tiny.manifest, "cluster-cam", {})
    assert (asked.classes, asked.versus, asked.settings["clusters"]) == (1, None, 10)


def test_targets_may_come_from_a_generator_and_are_read_once(tiny):
    asked = read_question(tiny.manifest, "grad-cam", {}, targets=(name for name in ("dog", "ant")))
    assert asked.classes == [3, 0]
    assert asked.targets(np.zeros((1, 5), np.float32)).tolist() == asked.targets(np.zeros((1, 5), np.float32)).tolist()


@pytest.mark.parametrize("targets", ["dog", 3, [], (), iter([])])
def test_targets_that_are_no_list_of_classes_are_refused(tiny, targets):
    with pytest.raises(ParameterError, match="targets must be a list of classes"):
        read_question(tiny.manifest, "grad-cam", {}, targets=targets)
