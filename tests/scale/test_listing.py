"""The listing: what was written down is what is read, ids stand once, and damage is told."""

import gzip
import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import BatchError
from camrt.scale.inputs import Inputs
from camrt.scale.listing import INDEX, PARTS_PER_FILE, open_listing, read_part, write_listing
from camrt.scale.lists import Columns
from camrt.scale.paths import Paths
from camrt.scale.rows import Rows
from camrt.scale.store import Store
from camrt.scale.tar import Tar

NAMES = st.text(max_size=9) | st.binary(max_size=9).map(lambda data: data.decode(errors="surrogateescape"))
COUNTS = st.integers(0, 1 << 60)
PARTS = (
    st.builds(Paths, st.lists(st.lists(NAMES, min_size=2, max_size=2), max_size=3))
    | st.builds(Tar, NAMES, NAMES, COUNTS, st.none() | COUNTS)
    | st.builds(Rows, NAMES, NAMES, st.lists(COUNTS), COUNTS, COUNTS, NAMES, st.none())
)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def numbered(count):
    return (Paths([[f"{i}.jpg", f"/photos/{i}.jpg"]]) for i in range(count))


def parts_of(listing):
    return [listing.part(number) for number in range(len(listing))]


@given(PARTS)
def test_a_part_is_read_as_it_was_written(part):
    assert read_part(json.loads(json.dumps(part.to_json()))) == part


@settings(deadline=None, max_examples=30)
@given(st.lists(PARTS, min_size=1, max_size=5, unique_by=lambda part: tuple(part.names())))
def test_a_listing_is_read_as_it_was_written(tmp_path_factory, parts):
    store = Store(str(tmp_path_factory.mktemp("listing")))
    try:
        written = write_listing(store, parts)
    except BatchError as error:
        assert "stand more than once" in str(error)
        return
    read = open_listing(store)
    assert read is not None
    assert parts_of(read) == parts_of(written) == parts
    assert np.array_equal(read.photos, written.photos)


def test_a_listing_of_many_parts_is_in_several_files(store):
    count = 2 * PARTS_PER_FILE + 1
    write_listing(store, numbered(count))
    listing = open_listing(store)
    assert parts_of(listing) == list(numbered(count))
    assert store.names("listing") == ["00000.jsonl.gz", "00001.jsonl.gz", "00002.jsonl.gz", "index.jsonl"]
    shown = gzip.decompress(store.read("listing/00000.jsonl.gz")).splitlines()
    assert json.loads(shown[99]) == {"kind": "paths", "listed": [["99.jpg", "/photos/99.jpg"]]}


def test_the_total_is_known_where_all_parts_are(store):
    assert write_listing(store, [*numbered(2), Tar("x.tar", "x", 0, 5)]).total == 7
    assert write_listing(store, [*numbered(2), Tar("x.tar.gz", "x")]).total is None


def test_a_step_is_told_for_every_part(store):
    steps = []
    write_listing(store, [*numbered(2), Tar("x.tar.gz", "x"), Tar("y.tar", "y", 0, 5)], steps.append)
    assert steps == [1, 1, 0, 5]


# --- again ----------------------------------------------------------------------------------------------------------------
def test_a_listing_that_was_interrupted_is_not_there(store):
    def interrupted():
        yield from numbered(PARTS_PER_FILE + 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_listing(store, interrupted())
    assert store.names("listing") == ["00000.jsonl.gz"]
    assert open_listing(store) is None
    write_listing(store, [Tar("x.tar", "x")])
    assert parts_of(open_listing(store)) == [Tar("x.tar", "x")]


def test_what_was_there_is_gone_before_anything_is_written(store):
    write_listing(store, numbered(PARTS_PER_FILE + 1))
    write_listing(store, numbered(1))
    assert store.names("listing") == ["00000.jsonl.gz", "index.jsonl"]


def test_nothing_to_explain_is_refused(store):
    with pytest.raises(BatchError, match="There is nothing to explain: the input lists no photo"):
        write_listing(store, [])
    assert open_listing(store) is None


# --- ids ------------------------------------------------------------------------------------------------------------------
def test_ids_that_repeat_are_refused_by_name(store):
    with pytest.raises(BatchError, match=r"2 stand more than once: 'a', 'b'\. List each photo once, or .*--id-column"):
        write_listing(store, [Paths([["a", "1"], ["b", "2"], ["c", "3"]]), Paths([["b", "4"], ["a", "5"], ["a", "6"]])])
    assert open_listing(store) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,path\n1,a.png\n2,b.png\n1,c.png\n", "1 stand more than once: '1'"),
        ("path\na.png\na.png\n", "more than once: 'a.png'"),
    ],
)
def test_lists_that_repeat_are_refused(store, tmp_path, content, message):
    (tmp_path / "list.csv").write_text(content)
    (tmp_path / "a.png").touch()
    with pytest.raises(BatchError, match=message):
        write_listing(store, Inputs([str(tmp_path / "list.csv")], Columns(), 2).parts())


def test_a_place_that_is_named_twice_is_refused(store, tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "x.tar").touch()
    for place, name in ((tmp_path, "a.png"), (tmp_path / "x.tar", "x.tar#0")):
        with pytest.raises(BatchError, match=rf"1 stand more than once: '{tmp_path}/{name}'"):
            write_listing(store, Inputs([str(place)] * 2, Columns(), 2).parts())


# --- damage ---------------------------------------------------------------------------------------------------------------
def test_a_damaged_part_is_told(store, tmp_path):
    listing = write_listing(store, numbered(3))
    file = tmp_path / "listing" / "00000.jsonl.gz"
    whole = file.read_bytes()
    for damaged in (
        b"",
        whole[:-5],
        whole[: len(whole) // 3],
        bytes(len(whole)),
        gzip.compress(b"[]"),
        gzip.compress(b'{"kind": 1}'),
    ):
        file.write_bytes(damaged)
        with pytest.raises(BatchError, match="00000.jsonl.gz is damaged .* Begin again in another folder"):
            parts_of(listing)
    file.unlink()
    with pytest.raises(BatchError, match="00000.jsonl.gz is damaged"):
        parts_of(listing)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    part = Paths([[f"{i}.jpg", "a"] for i in range(50)])
    listing = write_listing(Store(str(folder)), [part])
    file = folder / "listing" / "00000.jsonl.gz"
    return part, listing, file, file.read_bytes()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3))
def test_any_damage_of_a_part_is_told(written, damages):
    part, listing, file, whole = written
    data = bytearray(whole)
    for place, flip in damages:
        data[place % len(data)] ^= flip
    file.write_bytes(data)
    with suppress(BatchError):
        assert listing.part(0) == part  # bytes 3 to 9 tell nothing of the content


@pytest.mark.parametrize(
    "content", [b"{", b"[]\n", b"{}\n", b'{"offset": "a", "length": 1, "photos": 1}\n', b"\xff", b'{"offset": 0}\n1\n']
)
def test_a_damaged_index_is_told(store, content):
    store.write(INDEX, content)
    with pytest.raises(BatchError, match="index.jsonl is damaged .* Begin again in another folder"):
        open_listing(store)
