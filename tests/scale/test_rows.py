"""Parquet that holds images: whole row groups, ids, nulls and damage."""

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camrt.errors import BatchError, ImageError
from camrt.photo import load_photo
from camrt.scale.inputs import Inputs
from camrt.scale.lists import Columns
from camrt.scale.rows import Rows
from tests.scale.stuff import PIXEL, items_of


@pytest.fixture
def write(tmp_path):
    def write(columns, group=2, name="photos.parquet"):
        pq.write_table(pa.table(columns), tmp_path / name, row_group_size=group)
        return str(tmp_path / name)

    return write


def parts(path, size, **columns):
    return list(Inputs([path], Columns(**columns), size).parts())


def test_row_groups_are_gathered_whole(write):
    path = write({"image": [PIXEL] * 9})  # 2 + 2 + 2 + 2 + 1
    assert [(p.groups, p.first, p.count) for p in parts(path, 3)] == [([0, 1], 0, 4), ([2, 3], 4, 4), ([4], 8, 1)]
    assert [p.photos for p in parts(path, 1)] == [2, 2, 2, 2, 1]
    assert [p.photos for p in parts(path, 100)] == [9]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_ids_are_numbers_of_rows_whatever_the_parts(write, size):
    path = write({"image": [PIXEL] * 40}, group=7)
    items = [item for part in parts(path, size) for item in part.items()]
    assert [item.id for item in items] == [f"photos.parquet/{i}" for i in range(40)]
    assert items[39].source == f"{path}#39"


def test_a_column_of_ids_names_the_photos(write):
    path = write({"image": [PIXEL] * 3, "id": [7, None, 9]})
    assert [item.id for item in items_of(path)] == ["7", "photos.parquet/1", "9"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_images_are_bytes_of_any_kind(write, kind):
    (item,) = items_of(write({"image": pa.array([PIXEL], kind)}))
    assert item.image == PIXEL


def test_images_are_as_hugging_face_keeps_them(write):
    items = list(items_of(write({"image": [{"bytes": PIXEL, "path": "a.png"}, {"bytes": None, "path": "a.png"}, None]})))
    assert items[0].image == PIXEL
    for item in items[1:]:
        with pytest.raises(ImageError, match="there is no image in this row"):
            load_photo(item.image)


def test_an_image_that_is_null_is_one_that_cannot_be_read(write):
    items = list(items_of(write({"image": [PIXEL, None, PIXEL]})))
    assert [callable(item.image) for item in items] == [False, True, False]
    with pytest.raises(ImageError, match="photos.parquet#1: there is no image in this row"):
        load_photo(items[1].image)


def test_damage_is_one_photo_that_cannot_be_read(write, tmp_path):
    path = write({"image": [bytes([i]) * 5000 for i in range(6)]})
    made = parts(path, 4)
    data = bytearray((tmp_path / "photos.parquet").read_bytes())
    metadata = pq.read_metadata(path)
    start = metadata.row_group(1).column(0).dictionary_page_offset
    data[start : start + 20] = bytes(20)
    (tmp_path / "photos.parquet").write_bytes(data)
    items = list(made[0].items())
    assert [item.id for item in items] == ["photos.parquet/0", "photos.parquet/1", "photos.parquet#2"]
    with pytest.raises(ImageError, match="photos.parquet: cannot be read from row 2 on"):
        load_photo(items[2].image)
    assert [item.id for item in made[1].items()] == ["photos.parquet/4", "photos.parquet/5"]


def test_a_file_that_changed_or_went_is_one_photo_that_cannot_be_read(write, tmp_path):
    part = parts(write({"image": [PIXEL] * 6}), 2)[2]
    write({"image": [PIXEL]})
    assert cannot_be_read(part)
    write({"other": [PIXEL] * 6})
    assert cannot_be_read(part)
    (tmp_path / "photos.parquet").unlink()
    assert cannot_be_read(part)


def cannot_be_read(part: Rows) -> bool:
    (item,) = part.items()
    with pytest.raises(ImageError, match="cannot be read from row 4 on"):
        load_photo(item.image)
    return True


def test_names_are_the_ids_so_that_they_can_be_compared(write, tmp_path):
    path = write({"image": [PIXEL] * 3, "id": ["x", "y", None]})
    named, unnamed = parts(path, 10), parts(write({"image": [PIXEL] * 3}, name="other.parquet"), 2)
    assert [list(part.names()) for part in named] == [["x", "y", "photos.parquet/2"]]
    assert [list(part.names()) for part in unnamed] == [["other.parquet#0"], ["other.parquet#2"]]
    (tmp_path / "photos.parquet").unlink()
    with pytest.raises(BatchError, match="photos.parquet: the ids cannot be read"):
        list(named[0].names())


def test_parquet_is_read_through_urls(write, tmp_path):
    write({"image": [PIXEL] * 5})
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "photos.parquet"), "/p/photos.parquet")
    assert [item.id for item in items_of("memory://p/*.parquet")] == [f"photos.parquet/{i}" for i in range(5)]
    files.rm("/p", recursive=True)
