"""The catalogue of methods: what each of them says about itself, and which parameters it takes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import camrt
from camrt.errors import ParameterError, UnknownMethod
from camrt.methods import GRADIENTS, METHODS, get_method
from camrt.methods.registry import MASKED_IMAGES, TAIL, Parameter, method

from .conftest import ROOT


# --- methods --------------------------------------------------------------------------------------------------------------
def test_every_method_says_what_it_costs_and_where_it_is_from():
    for name, found in METHODS.items():
        assert found.name == name
        assert re.search(r"\b(19|20)\d\d\b", found.citation)
        assert re.match(r"[12]\b", found.passes)
        assert isinstance(found.needs, tuple)
        assert set(found.needs) <= {GRADIENTS, MASKED_IMAGES, TAIL}
        assert all(parameter.help for parameter in found.parameters.values())


def test_every_file_of_methods_is_one_method():
    files = {path.stem for path in (ROOT / "camrt" / "methods").glob("*.py")} - {"__init__", "registry", "weighting"}
    assert sorted(found.run.__module__ for found in METHODS.values()) == sorted(f"camrt.methods.{name}" for name in files)
    for name, found in METHODS.items():
        assert found.run.__module__.endswith("." + name.replace("++", "-plus-plus").replace("-", "_"))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_asks_of_the_network_what_it_says_it_needs(tiny_bundle, pixels, monkeypatch, name):
    engine = camrt.load(tiny_bundle, ["cpu"]).engine
    asked = set()
    for need, function in (
        (GRADIENTS, "gradients"), (MASKED_IMAGES, "masked_logits"), (TAIL, "edited_logits"), (TAIL, "linear_tail"),
    ):  # fmt: skip
        real = getattr(engine, function)
        monkeypatch.setattr(engine, function, lambda *args, n=need, f=real, **rest: asked.add(n) or f(*args, **rest))
    camrt.Explainer(engine).explain(pixels, method=name, **({"masks": 4} if name == "rise" else {}))
    assert asked == set(METHODS[name].needs)


def test_the_decorator_enters_a_function_under_its_name(monkeypatch):
    monkeypatch.setitem(METHODS, "own-cam", None)

    @method("own-cam", passes="1", citation="2026")
    def run(case, **parameters):
        return case

    assert METHODS["own-cam"].run is run
    assert (METHODS["own-cam"].needs, dict(METHODS["own-cam"].parameters)) == ((), {})


@pytest.mark.parametrize(("asked", "nearest"), [
    ("cluster-cm", "cluster-cam"), ("grad-kam", "grad-cam"), ("HiResCAM", "hires-cam"), ("grad_cam++", "grad-cam++"),
    ("scorecam", "score-cam"), ("Rise", "rise"),
])  # fmt: skip
def test_an_unknown_method_is_refused_with_the_nearest(asked, nearest):
    with pytest.raises(UnknownMethod, match=f"Did you mean '{re.escape(nearest)}'"):
        get_method(asked)


@pytest.mark.parametrize("asked", [None, 3, "", "zzzz", ["cam"]])
def test_what_is_no_method_is_refused_with_all_of_them(asked):
    with pytest.raises(UnknownMethod, match=re.escape(f"Known: {', '.join(METHODS)}.")):
        get_method(asked)


# --- parameters -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", METHODS)
def test_every_default_is_allowed_and_keeps_its_type(name):
    chosen = METHODS[name]
    defaults = {key: parameter.default for key, parameter in chosen.parameters.items()}
    assert chosen.settings({}) == defaults
    for given in (defaults, {key: str(value) for key, value in defaults.items()}):
        found = chosen.settings(given)
        assert found == defaults
        assert [type(value) for value in found.values()] == [type(value) for value in defaults.values()]


@pytest.mark.parametrize(("name", "given", "text"), [
    ("cluster-cam", {"cluster": 3}, "no parameter 'cluster'.*Did you mean 'clusters'"),
    ("cluster-cam", {"clusters": 0}, "whole number from 1 to 4096 or auto, got 0"),
    ("cluster-cam", {"clusters": 2.5}, "got 2.5"),
    ("cluster-cam", {"clusters": "many"}, "got 'many'"),
    ("cluster-cam", {"clusters": True}, "got True"),
    ("cluster-cam", {"clusters": None}, "got None"),
    ("cluster-cam", {"clusters": float("nan")}, "got nan"),
    ("cluster-cam", {"merge": "evidense"}, "Did you mean 'evidence'"),
    ("cluster-cam", {"clustering": "k-means"}, "Did you mean 'kmeans'"),
    ("cluster-cam", {"seed": -1}, "from 0 to"),
    ("group-cam", {"denoise": 1.0}, r"a number from 0 to 0\.99 or auto, got 1\.0"),
    ("group-cam", {"denoise": float("nan")}, "got nan"),
    ("group-cam", {"denoise": True}, "got True"),
    ("rise", {"p": 0}, r"a number from 0\.01 to 1, got 0"),
    ("rise", {"p": "half"}, "got 'half'"),
    ("rise", {"masks": 10**7}, "from 1 to 100000"),
    ("score-cam", {"variant": "torch-cam"}, "Did you mean 'torchcam'"),
    ("grad-cam", {"clusters": 3}, r"grad-cam has no parameter 'clusters'\. It has: none"),
    ("hires-cam", {"raw": 1}, "raw must be true or false, got 1"),
    ("hires-cam", {"raw": 0.0}, r"true or false, got 0\.0"),
    ("hires-cam", {"raw": "yes"}, "got 'yes'"),
    ("hires-cam", {"raw": ""}, "got ''"),
    ("hires-cam", {"raw": None}, "got None"),
])  # fmt: skip
def test_parameters_outside_what_is_allowed_are_refused(name, given, text):
    with pytest.raises(ParameterError, match=text):
        METHODS[name].settings(given)


def test_text_that_is_a_number_counts_as_one():
    settings = METHODS["cluster-cam"].settings({"clusters": "32", "seed": np.int64(5)})
    assert (settings["clusters"], settings["seed"], settings["merge"]) == (32, 5, "positive")
    settings = METHODS["rise"].settings({"p": "0.25", "masks": "20"})
    assert (settings["masks"], settings["grid"], settings["p"]) == (20, 7, 0.25)


@pytest.mark.parametrize(("given", "expected"), [("auto", "auto"), (0, 0.0), (0.3, 0.3), ("0.3", 0.3), (np.float32(0.5), 0.5)])
def test_a_number_or_a_word_is_taken_where_both_are_allowed(given, expected):
    found = METHODS["group-cam"].settings({"denoise": given})["denoise"]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(("given", "expected"), [
    (True, True), (False, False), ("true", True), ("False", False), ("TRUE", True), (np.True_, True), (np.bool_(0), False),
])  # fmt: skip
def test_true_and_false_are_taken_as_words_too(given, expected):
    assert METHODS["hires-cam"].settings({"raw": given})["raw"] is expected


def test_what_is_allowed_is_said_in_words():
    assert Parameter(False, "a switch").allowed == "true or false"
    assert Parameter("a", "words", ("a", "b")).allowed == "one of a, b"
    assert Parameter(0.5, "a number", least=0, most=1).allowed == "a number from 0 to 1"
    assert Parameter("auto", "both", ("auto",), least=0, most=0.99).allowed == "a number from 0 to 0.99 or auto"
