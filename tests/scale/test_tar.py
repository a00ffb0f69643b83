"""Tar archives: what of them is explained, stretches, and damage."""

import gzip
import io
import os
import tarfile
import tracemalloc

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import ImageError
from camrt.photo import MAX_BYTES, load_photo
from camrt.scale.tar import MAX_NAME, Tar, tar_parts
from tests.scale.stuff import items_of

LONG = "d" * 90 + "/" + "e" * 120 + ".jpg"


def packed(*names, mode="w", form=tarfile.PAX_FORMAT, **more):
    """Return an archive of members, each of which holds its number; more are given as TarInfo."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode, format=form, errors="surrogateescape", **more) as archive:
        for i, name in enumerate(names):
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            content = str(i).encode() if member.isreg() else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def member(name, kind=tarfile.REGTYPE, target=""):
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


@pytest.fixture
def write(tmp_path):
    def write(data, name="x.tar"):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def ids(path, size=1000):
    return [item.id for part in tar_parts(path, "x", size) for item in part.items()]


def contents(path, size=1000):
    """Return what was read, by id; of what cannot be read, why."""
    found = {}
    for part in tar_parts(path, "x", size):
        for item in part.items():
            assert item.id not in found
            found[item.id] = item.image if isinstance(item.image, bytes) else why(item)
    return found


def why(item):
    with pytest.raises(ImageError) as caught:
        load_photo(item.image)
    return str(caught.value)


# --- what is explained ----------------------------------------------------------------------------------------------------
def test_images_are_explained_and_nothing_else(write):
    names = [
        "0.jpg",
        "0.cls",
        "0.json",
        "0.mask.png",
        "1.PNG",
        "1.txt",
        "2.seg.jpg",
        "d/3.webp",
        ".4.jpg",
        "._1.png",
        "5",
        "./6.gif",
    ]
    assert contents(write(packed(*names))) == {"x/0.jpg": b"0", "x/1.PNG": b"4", "x/d/3.webp": b"7", "x/6.gif": b"11"}


def test_folders_links_and_devices_are_passed_over(write):
    kinds = [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    odd = [member(f"{i}.jpg", kind, "/etc/passwd") for i, kind in enumerate(kinds)]
    assert ids(write(packed("a.jpg", *odd, "b.jpg"))) == ["x/a.jpg", "x/b.jpg"]


def test_names_are_only_names(write):
    names = ["../../etc/passwd.jpg", "/etc/shadow.png", "a/../b.jpg", "a\nb.jpg", "é#%.jpg", "\udcff.jpg"]
    assert ids(write(packed(*names))) == [f"x/{name}" for name in [*names[:-1], r"\xff.jpg"]]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read(write, form):
    names = [f"{i}{LONG}" for i in range(5)]
    for size in (1, 2, 1000):
        assert ids(write(packed(*names, form=form)), size) == [f"x/{name}" for name in names]


def test_names_that_repeat_are_numbered(write):
    path = write(packed("a.jpg", "b.jpg", "./a.jpg", "a.jpg"))
    assert contents(path, 2) == {"x/a.jpg": b"0", "x/b.jpg": b"1", "x/a.jpg#2": b"2", "x/a.jpg#3": b"3"}
    assert len(list(tar_parts(path, "x", 2))) == 1


def test_empty_archives_hold_nothing(write):
    for data in (packed(), packed("a.txt")):
        assert list(tar_parts(write(data), "x", 2)) == []
    assert ids(write(gzip.compress(packed()), "x.tar.gz")) == []


# --- stretches ------------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["jpg", "cls", "mask.png", "jpg" + "/" * 5 + "e" * 150 + ".png"]), max_size=12), st.integers(1, 5)
)
def test_stretches_hold_what_the_whole_holds(tmp_path_factory, endings, size):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    path.write_bytes(packed(*(f"{i}.{ending}" for i, ending in enumerate(endings))))
    parts = list(tar_parts(str(path), "x", size))
    whole = list(Tar(str(path), "x").items())
    assert [item for part in parts for item in part.items()] == whole
    assert [part.photos for part in parts] == [size] * (len(whole) // size) + [len(whole) % size] * bool(len(whole) % size)


def test_a_stretch_of_an_archive_that_shrank_says_so(write):
    part = list(tar_parts(write(packed(*(f"{i}.jpg" for i in range(4)))), "x", 2))[1]
    write(packed(*(f"{i}.jpg" for i in range(3))))
    found = list(part.items())
    assert [item.id for item in found] == ["x/2.jpg", f"x#{part.offset}"]
    assert "after 1 photos (it held 2 photos when it was listed, and holds 1)" in why(found[1])


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_compressed_archives_are_one_part(write, ending):
    path = write(packed("a.jpg", "b.jpg", mode=f"w:{ending}"), f"x.tar.{ending}")
    assert [part.photos for part in tar_parts(path, "x", 1)] == [None]
    assert contents(path) == {"x/a.jpg": b"0", "x/b.jpg": b"1"}


def test_compression_shows_in_the_content_not_in_the_name(write):
    assert contents(write(packed("a.jpg", mode="w:gz"), "x.tar")) == {"x/a.jpg": b"0"}
    assert contents(write(packed("a.jpg"), "x.tgz")) == {"x/a.jpg": b"0"}


def test_archives_are_read_through_urls():
    files = fsspec.filesystem("memory")
    files.pipe({"/t/x.tar": packed("a.jpg", "b.jpg"), "/t/y.tar.gz": packed("c.jpg", mode="w:gz")})
    assert [item.id for item in items_of("memory://t/*.tar*")] == ["x.tar/a.jpg", "x.tar/b.jpg", "y.tar.gz/c.jpg"]
    files.rm("/t", recursive=True)


# --- damage ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cut", [2 * 1024 + 1, 2 * 1024 + 100, 2 * 1024 + 512])
def test_a_cut_archive_gives_what_is_there_and_says_so(write, cut):
    assert_told(contents(write(packed("a.jpg", "b.jpg", "c.jpg")[:cut])))


def test_a_damaged_header_is_not_the_end(write):
    data = bytearray(packed("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    data[2 * 1024 + 150] ^= 1
    assert_told(contents(write(data)))


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_damaged_compressed_archive_says_so(write, ending):
    data = packed(*(f"{os.urandom(50).hex()}.jpg" for _ in range(500)), mode=f"w:{ending}")
    for damaged in (data[: len(data) // 2], data[: len(data) // 2] + bytes(50) + data[len(data) // 2 + 50 :], data[:10]):
        *_, last = contents(write(damaged, f"x.tar.{ending}")).values()
        assert "cannot be read after" in str(last)


def assert_told(found):
    assert list(found) == ["x/a.jpg", "x/b.jpg", "x#0"]
    assert "x.tar: cannot be read after 2 photos" in found["x#0"]


@pytest.mark.parametrize("content", [b"", b"this is no archive", b"path\na.jpg\n" * 200], ids=["nothing", "text", "more text"])
def test_what_is_no_archive_is_one_photo_that_cannot_be_read(write, content):
    assert "cannot be read after 0 photos" in contents(write(content))["x#0"]


def test_an_archive_that_went_is_one_photo_that_cannot_be_read(tmp_path):
    for path in (str(tmp_path / "x.tar"), str(tmp_path), "memory://gone/x.tar", "odd://x.tar", "a\0.tar"):
        (item,) = Tar(path, "x").items()
        assert "cannot be read after 0 photos" in why(item)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    assert "a pipe or a device" in contents(str(tmp_path / "x.tar"))["x#0"]


# --- hostile archives -----------------------------------------------------------------------------------------------------
def announcing(number, kind=tarfile.REGTYPE, **pax):
    found = tarfile.TarInfo("b.jpg")
    found.size, found.type, found.pax_headers = number, kind, pax
    return packed("a.jpg")[:1024] + found.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) + packed("c.jpg")


def test_a_photo_that_would_fill_the_memory_is_not_read(write):
    found = contents(write(announcing(MAX_BYTES + 1)))
    assert found["x/a.jpg"] == b"0"
    assert "x.tar/b.jpg: it has 1,073,741,825 bytes" in found["x/b.jpg"]
    assert "cannot be read after 2 photos" in found["x#0"]


def test_a_photo_of_which_little_is_there_takes_little_memory(write):
    path = write(announcing(MAX_BYTES))
    tracemalloc.start()
    found = contents(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "cannot be read after 1 photos" in found["x#0"]
    assert peak < 1e6


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_that_would_fill_the_memory_is_not_read(write, kind):
    assert "a header announces" in contents(write(announcing(MAX_NAME + 1, kind)))["x#0"]


def test_headers_that_lead_back_end_the_archive(write):
    assert "announces -1024 bytes" in contents(write(announcing(-1024)))["x#0"]
    assert "announces -1024 bytes" in contents(write(announcing(0, size="-1024")))["x#0"]


def test_headers_of_headers_end_the_archive(write):
    name = tarfile.TarInfo("n")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2
    assert (
        "cannot be read after 0 photos"
        in contents(write((name.tobuf(tarfile.GNU_FORMAT) + b"n\0".ljust(512, b"\0")) * 2000))["x#0"]
    )


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8 * 512), st.binary(min_size=1, max_size=9)), min_size=1, max_size=3),
    st.sampled_from(["", "gz"]),
)
def test_any_damage_raises_nothing(tmp_path_factory, damages, ending):
    data = bytearray(packed("a.jpg", "b" + LONG, "c.jpg", mode=f"w:{ending}"))
    for start, garbage in damages:
        data[start : start + len(garbage)] = garbage
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    path.write_bytes(data)
    for item in Tar(str(path), "x").items():
        assert isinstance(item.image, bytes) or "x.tar" in why(item)


# --- many -----------------------------------------------------------------------------------------------------------------
def test_memory_stays_flat_over_many_members(write):
    header = tarfile.TarInfo("0000000.cls").tobuf(tarfile.USTAR_FORMAT)
    path = write(packed("a.jpg")[:1024] + header * 10_000 + packed("b.jpg"))
    tracemalloc.start()
    assert [item.id for item in Tar(path, "x").items()] == ["x/a.jpg", "x/b.jpg"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6  # of which a header takes 2000 bytes
