"""camrt.evaluate.finding: what the sentences say is what the intervals say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from camrt.evaluate import summarise
from camrt.evaluate.finding import cautions, headline, leading
from camrt.evaluate.summary import Difference
from camrt.metrics import Interval

from .conftest import evaluation_of


@pytest.fixture(scope="module")
def plain(shapes, scenes, tmp_path_factory):
    """Three methods and the controls on four photos; the reference is grad-cam."""
    evaluation = evaluation_of(shapes, scenes / "photos", ["grad-cam", "eigen-cam", "layer-cam"])
    return summarise(evaluation, evaluation.run(tmp_path_factory.mktemp("finding")))


def with_differences(summary, **verdicts):
    """Return the summary with these differences in insertion − deletion, and no other."""
    interval = Interval(0.03, 0.01, 0.05, 4)
    rows = [
        replace(row, differences={"insertion_deletion": Difference(interval, verdicts[name])})
        if (name := row.variant.name.replace("-", "_")) in verdicts
        else replace(row, differences={})
        for row in summary.rows
    ]
    return replace(summary, rows=rows)


def test_a_better_method_is_named_with_its_gain_and_interval(plain):
    first = headline(with_differences(plain, eigen_cam="better", layer_cam="worse"))[0]
    assert (
        "eigen-cam (+0.030, 95 % interval +0.010 … +0.050) is better than grad-cam in insertion − deletion; 1 is worse."
        in first
    )


def test_what_is_undecided_is_called_neither_better_nor_worse(plain):
    first = headline(with_differences(plain, eigen_cam="undecided", layer_cam="undecided"))[0]
    assert first.endswith("no method is better than grad-cam in insertion − deletion; 2 cannot be told from it.")


def test_a_method_that_is_no_better_than_a_control_is_named(plain):
    results = {
        (photo, name): replace(
            result,
            values={**result.values, "insertion_deletion": {"eigen-cam": 0.1, "random map": 0.2}.get(name, 0.5)},
        )
        for (photo, name), result in plain.results.items()
    }
    sentences = headline(replace(plain, results=results))
    assert (
        "Not shown to be better than the random map, which looks at nothing, in insertion − deletion: eigen-cam." in sentences
    )


def test_the_quickest_of_the_methods_that_are_not_worse_is_named(plain):
    rows = [replace(row, ms={"grad-cam": 9.0, "eigen-cam": 3.0, "layer-cam": 1.0}.get(row.variant.name)) for row in plain.rows]
    summary = with_differences(replace(plain, rows=rows), eigen_cam="undecided", layer_cam="worse")
    assert headline(summary)[-1].startswith("grad-cam takes 9.0 ms a photo")
    assert headline(summary)[-1].endswith("was not shown to be worse is eigen-cam with 3.0 ms.")


@pytest.mark.parametrize(
    ("ms", "said"), [(9.0, "every quicker method was shown to be worse."), (0.5, "no other method is quicker.")]
)
def test_where_no_equal_is_quicker_it_says_whether_others_are(plain, ms, said):
    rows = [replace(row, ms={"grad-cam": ms, "eigen-cam": 3.0, "layer-cam": 1.0}.get(row.variant.name)) for row in plain.rows]
    summary = with_differences(replace(plain, rows=rows), eigen_cam="worse", layer_cam="worse")
    assert headline(summary)[-1].endswith(said)


def test_few_photos_and_many_differences_are_warned_of(plain):
    few, chance = cautions(plain)
    assert f"{len(plain.photos)} photos are few" in few
    tested = sum(len(row.differences) for row in plain.rows if row.variant.method)
    assert chance.startswith(f"{tested} differences from grad-cam were tested at 95 %")


def test_without_the_leading_figure_the_first_that_was_measured_leads(plain):
    rows = [replace(row, figures={k: v for k, v in row.figures.items() if k != "insertion_deletion"}) for row in plain.rows]
    assert (leading(plain), leading(replace(plain, rows=rows))) == ("insertion_deletion", "insertion")
