"""Lists: which column holds what, what their paths start from, and what is refused."""

import io

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camrt.errors import BatchError, ImageError
from camrt.photo import load_photo
from camrt.scale.inputs import Inputs
from camrt.scale.lists import TRIED, Columns
from camrt.scale.rows import Rows
from tests.scale.stuff import PIXEL, items_of


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "ü.png"):
        (tmp_path / name).write_bytes(PIXEL)
    return tmp_path


def write(folder, name, content):
    """Write a list of text, bytes or columns."""
    path = folder / name
    if isinstance(content, dict):
        pq.write_table(pa.table(content), path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def listed(path, size=10, **columns):
    """Return [id, path] of each photo."""
    return [pair for part in Inputs([path], Columns(**columns), size).parts() for pair in part.listed]


def refused(path, match, **columns):
    with pytest.raises(BatchError, match=match):
        listed(path, **columns)


def test_a_csv_of_semicolons_is_read_as_one(folder):
    path = write(folder, "list.csv", "id;image_path\n1;a.png\n2;b.png\n")
    assert listed(path) == [["1", f"{folder}/a.png"], ["2", f"{folder}/b.png"]]


# --- text -----------------------------------------------------------------------------------------------------------------
def test_lines_are_paths_beside_the_list(folder):
    path = write(folder, "list.txt", f"a.png\r\n\n./b.png\n{folder}/a.png\nhttp://host/ü b.png\n # .png")
    assert listed(path) == [
        ["a.png", f"{folder}/a.png"],
        ["./b.png", f"{folder}/./b.png"],
        [f"{folder}/a.png", f"{folder}/a.png"],
        ["http://host/ü b.png", "http://host/ü b.png"],
        [" # .png", f"{folder}/ # .png"],
    ]


def test_lines_may_start_elsewhere(folder, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("other"), "list.txt", "a.png\n")
    refused(path, match="the first paths are not there, .*/a.png for instance")
    for root in (str(folder), f"{folder}/", f"file://{folder}"):
        assert listed(path, root=root) == [["a.png", f"{folder}/a.png"]]
    assert listed(path, root="s3://bucket/x") == [["a.png", "s3://bucket/x/a.png"]]


def test_a_byte_order_mark_is_no_part_of_the_first_line(folder):
    assert listed(write(folder, "list.txt", b"\xef\xbb\xbfa.png")) == [["a.png", f"{folder}/a.png"]]
    assert listed(write(folder, "list.csv", b"\xef\xbb\xbfpath,n\na.png,1")) == [["a.png", f"{folder}/a.png"]]


def test_bytes_that_are_no_utf8_are_those_of_the_file_name(folder):
    name = "caf\udce9.png"
    (folder / name).write_bytes(PIXEL)
    for file, content in (("list.txt", b"caf\xe9.png"), ("list.csv", b"path\ncaf\xe9.png\n")):
        path = write(folder, file, content)
        assert listed(path) == [[r"caf\xe9.png", f"{folder}/{name}"]]
        (item,) = items_of(path)
        assert load_photo(item.image).pixels.shape == (1, 1, 3)


# --- CSV ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("column", ["path", "file", "filename", "file_name", "image", "url", "uri", "source", "jpg"])
def test_usual_names_of_the_column_are_known(folder, column):
    path = write(folder, "list.csv", f"label,{column}\ncat,a.png\n")
    assert listed(path) == [["a.png", f"{folder}/a.png"]]


def test_columns_may_be_named(folder):
    path = write(folder, "list.csv", "path,where,key\nno.png,a.png,1\nno.png,b.png,2\n")
    assert listed(path, photo="where", id="key") == [["1", f"{folder}/a.png"], ["2", f"{folder}/b.png"]]


def test_a_column_called_id_names_the_photos(folder):
    assert listed(write(folder, "list.csv", "id,path\nx,a.png\n,b.png\n")) == [
        ["x", f"{folder}/a.png"],
        ["b.png", f"{folder}/b.png"],
    ]


def test_tabs_part_the_columns_of_tsv(folder):
    assert listed(write(folder, "list.TSV", "id\tpath\nx, y\ta.png\n")) == [["x, y", f"{folder}/a.png"]]


def test_quoted_cells_may_hold_commas_and_line_breaks(folder):
    path = write(folder, "list.csv", 'path,note\n"a,\n""b"".png","1\n2"\nb.png,3\n')
    assert [name for name, _ in listed(path)] == ['a,\n"b".png', "b.png"]


def test_an_empty_cell_is_a_photo_that_cannot_be_read(folder):
    items = list(items_of(write(folder, "list.csv", "n,path\n1,\n2,a.png\n3\n")))
    assert [item.id for item in items] == ["list.csv:2", "a.png", "list.csv:4"]
    with pytest.raises(ImageError, match="The list names no path for this photo"):
        load_photo(items[0].image)


def test_a_missing_photo_is_one_photo_that_cannot_be_read(folder):
    items = list(items_of(write(folder, "list.csv", "path\nno.png\na.png\n\0.png\n")))
    with pytest.raises(ImageError, match="no.png: there is no such file"):
        load_photo(items[0].image)
    with pytest.raises(ImageError):
        load_photo(items[2].image)


@pytest.mark.parametrize("count", [1, TRIED - 1, TRIED, TRIED + 1, 1000])
def test_a_list_whose_first_paths_are_not_there_is_refused(folder, count):
    path = write(folder, "list.csv", "path\n" + "\n".join(f"no{i}.png" for i in range(count)))
    refused(path, match="list.csv: the first paths are not there, .*/no0.png for instance. Relative paths start at")
    refused(write(folder, "empty.csv", 'path,n\n"",1\nno.png,2\n'), match="the first paths are not there, .*/no.png")


def test_a_list_without_a_head_is_refused(folder):
    refused(
        write(folder, "list.csv", "a.png,1\nb.png,2\n"),
        match="which column holds the photos.*--column; there are: a.png, 1. A list",
    )


def test_a_column_that_is_not_there_is_refused(folder):
    path = write(folder, "list.csv", "path,key\na.png,1\n")
    refused(path, photo="paht", match="list.csv has no column 'paht'. Did you mean 'path'\\? It has: path, key.")
    refused(path, id="kye", match="has no column 'kye'. Did you mean 'key'")


def test_empty_lists_are_refused(folder):
    refused(write(folder, "list.csv", ""), match="list.csv is empty. Its first line names the columns")
    assert listed(write(folder, "list.csv", "path\n")) == listed(write(folder, "list.txt", "\n")) == []


def test_what_is_no_list_is_refused(folder):
    refused(
        write(folder, "list.csv", 'path\n"' + "a" * 200_000),
        match=r"list.csv cannot be read as a list of photos \(field larger",
    )
    refused(write(folder, "list.csv", "path\na.png\n".encode("utf-16")), match="which column holds the photos")
    refused(
        write(folder, "list.parquet", "path\na.png\n"), match=r"list.parquet cannot be read as a list of photos \(Parquet magic"
    )
    refused(
        write(folder, "list.parquet", ""), match=r"list.parquet cannot be read as a list of photos \(Parquet file size is 0"
    )


def test_paths_start_at_the_url_of_the_list(folder):
    files = fsspec.filesystem("memory")
    files.pipe({"/lists/list.csv": b"path\na.png\n", "/lists/list.txt": b"a.png\n", "/lists/a.png": PIXEL})
    sink = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.png"]}), sink)
    files.pipe("/lists/list.parquet", sink.getvalue())
    for name in ("list.csv", "list.txt", "list.parquet"):
        assert listed(f"memory://lists/{name}") == [["a.png", "memory://lists/a.png"]]
    files.rm("/lists", recursive=True)


# --- Parquet --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_may_hold_paths_as_any_kind_of_text(folder, kind):
    path = write(
        folder, "list.parquet", {"id": pa.array(["x", "y"]).cast(kind), "path": pa.array(["a.png", "b.png"]).cast(kind)}
    )
    assert listed(path) == [["x", f"{folder}/a.png"], ["y", f"{folder}/b.png"]]


def test_nulls_of_parquet_are_as_empty_cells(folder):
    path = write(folder, "list.parquet", {"id": [1, None, 3, None], "path": ["a.png", "b.png", None, None]})
    assert listed(path) == [["1", f"{folder}/a.png"], ["b.png", f"{folder}/b.png"], ["3", ""], ["list.parquet#3", ""]]


def test_parquet_that_holds_the_images_is_read_itself(folder):
    images = {"image": [PIXEL] * 2, "image_file": [{"bytes": PIXEL, "path": "a.png"}] * 2}
    for column in images:
        path = write(folder, "list.parquet", images | {"key": ["x", "y"]})
        (part,) = Inputs([path], Columns(photo=column, id="key"), 10).parts()
        assert isinstance(part, Rows)
        assert [item.id for item in part.items()] == ["x", "y"]


def test_a_column_of_numbers_holds_no_photos(folder):
    path = write(folder, "list.parquet", {"image": [1, 2], "other": [{"path": "a.png"}] * 2})
    refused(path, match="list.parquet: column 'image' holds int64, and a column of photos holds paths")
    refused(path, photo="other", match="column 'other' holds struct")


def test_texts_of_parquet_that_are_no_utf8_are_refused(folder):
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff.png"]).buffers())
    refused(write(folder, "list.parquet", {"path": broken}), match=r"cannot be read as a list of photos \('utf-8' codec")
