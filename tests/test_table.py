"""camrt.table: every refusal names the key, what it must be and what was found."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import BundleError, ExportError
from camrt.table import Table

VALUES = {
    "text": "cat", "count": 3, "ratio": 0.5, "list": [1, 2.5], "words": ["a", "b"], "null": None, "yes": True,
    "inner": {"deep": 1}, "rows": [{"a": 1}, {"a": 2}],
}  # fmt: skip


def table(**values: object) -> Table:
    return Table({**VALUES, **values}, "bundle.json", BundleError)


def test_what_is_there_is_read():
    t = table()
    assert (t.text("text"), t.integer("count"), t.number("ratio"), t.number("count")) == ("cat", 3, 0.5, 3.0)
    assert (t.numbers("list", 2), t.strings("words"), t.choice("text", ["dog", "cat"])) == ((1.0, 2.5), ("a", "b"), "cat")
    assert t.table("inner").integer("deep") == 1
    assert [row.integer("a") for row in t.tables("rows")] == [1, 2]


def test_a_value_of_null_is_not_in_the_table():
    t = table()
    assert "text" in t
    assert "null" not in t
    assert "nothing" not in t


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda t: t.text("nothing"), "bundle.json: 'nothing' is missing; it must be a string."),
        (lambda t: t.text("count"), "bundle.json: 'count' must be a string, got 3."),
        (lambda t: t.text("null"), "bundle.json: 'null' must be a string, got None."),
        (lambda t: t.integer("text"), "bundle.json: 'text' must be a whole number, got 'cat'."),
        (lambda t: t.integer("ratio"), "bundle.json: 'ratio' must be a whole number, got 0.5."),
        (lambda t: t.integer("yes"), "bundle.json: 'yes' must be a whole number, got True."),
        (lambda t: t.integer("count", 4), "bundle.json: 'count' must be a whole number of at least 4, got 3."),
        (lambda t: t.number("text"), "bundle.json: 'text' must be a number, got 'cat'."),
        (lambda t: t.number("yes"), "bundle.json: 'yes' must be a number, got True."),
        (lambda t: t.choice("text", ["a", "b"]), "bundle.json: 'text' must be one of a, b, got 'cat'."),
        (lambda t: t.numbers("list", 3), "bundle.json: 'list' must be a list of 3 numbers, got [1, 2.5]."),
        (lambda t: t.numbers("words", 2), "bundle.json: 'words' must be a list of 2 numbers, got ['a', 'b']."),
        (lambda t: t.numbers("count", 1), "bundle.json: 'count' must be a list, got 3."),
        (lambda t: t.strings("list"), "bundle.json: 'list' must be a list of strings, got [1, 2.5]."),
        (lambda t: t.table("list"), "bundle.json: 'list' must be an object, got [1, 2.5]."),
        (lambda t: t.tables("inner"), "bundle.json: 'inner' must be a list, got {'deep': 1}."),
        (lambda t: t.tables("list"), "bundle.json: list[0] must be an object, got 1."),
        (lambda t: t.table("inner").text("deep"), "bundle.json: 'inner.deep' must be a string, got 1."),
        (lambda t: t.tables("rows")[1].text("a"), "bundle.json: 'rows[1].a' must be a string, got 2."),
        (
            lambda t: t.table("inner").only("depth"),
            "bundle.json: unknown key 'inner.deep'. Did you mean 'depth'? Known keys: depth.",
        ),
    ],
)
def test_a_refusal_names_key_expectation_and_finding(read, message):
    with pytest.raises(BundleError) as caught:
        read(table())
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)], ids=lambda value: str(value)[:4])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(BundleError, match="'x' must be a finite number"):
        table(x=value).number("x")
    with pytest.raises(BundleError, match="'x' must be a list of 1 numbers"):
        table(x=[value]).numbers("x", 1)


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_a_file_that_is_no_object_is_refused(values):
    with pytest.raises(BundleError, match=r"bundle.json: the file must be an object, got"):
        Table(values, "bundle.json", BundleError)


def test_the_callers_error_is_raised():
    with pytest.raises(ExportError, match="the options: 'x' is missing"):
        Table({}, "the options", ExportError).number("x")


def test_a_long_value_is_told_in_short():
    with pytest.raises(BundleError) as caught:
        table(x="long" * 1000).number("x")
    assert len(str(caught.value)) < 120


def test_known_keys_pass():
    assert table().only(*VALUES) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def is_read(method: str, value: object) -> bool:
    try:
        getattr(table(x=value), method)("x")
    except BundleError:
        return False
    return True


@given(value=json_values)
def test_whatever_stands_there_is_read_by_its_own_reader_or_refused(value):
    readers = {m for m in ("text", "integer", "number", "strings", "table", "tables") if is_read(m, value)}
    kinds = {str: {"text"}, int: {"integer", "number"}, float: {"number"}, list: {"strings", "tables"}, dict: {"table"}}
    assert readers <= kinds.get(type(value), set())
