"""Inputs behind URLs: they are as local ones are."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest

from camrt.photo import load_photo
from tests.scale.stuff import NAMES, PIXEL, ids, items_of, make_folder, refused, take_fsspec_away, unreadable


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def server(folder):
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_folder_behind_a_url_is_as_a_local_one(folder, memory):
    memory.put(str(folder), "/photos", recursive=True)
    assert ids("memory://photos") == ids("memory://photos/") == sorted(NAMES)
    assert ids("memory://") == [f"photos/{name}" for name in sorted(NAMES)]
    assert ids("memory://photos/b*/*.jpg") == ["b/1.jpg"]
    assert ids("memory://photos/**/*.TIFF") == ["b/c/2.TIFF"]
    assert ids("memory://photos/a.jpg") == ["a.jpg"]
    assert unreadable("memory://photos") == []
    refused("memory://photos/*.gif", match="no file matches")
    refused("memory://nothing", match="memory://nothing: there is no such file or folder")


def test_a_url_of_this_machine_is_a_path(folder):
    assert list(items_of(f"file://{folder}")) == list(items_of(str(folder)))


def test_an_archive_may_be_a_folder(folder):
    with fsspec.open(f"{folder}/all.zip", "wb") as file:
        zipped = fsspec.filesystem("zip", fo=file, mode="w")
        for name in ("d/a.png", "d/e/b.png"):
            zipped.pipe(name, PIXEL)
        zipped.close()
    inside = f"::file://{folder}/all.zip"
    assert ids(f"zip://d{inside}") == ids(f"zip://d/**{inside}") == ["a.png", "e/b.png"]
    assert ids(f"zip://{inside}") == ["d/a.png", "d/e/b.png"]
    assert ids(f"zip://d/a.png{inside}") == ["a.png"]
    assert unreadable(f"zip://d{inside}") == []


def test_photos_come_over_http(server):
    (item,) = items_of(f"{server}/a.jpg")
    assert (item.id, item.source) == ("a.jpg", f"{server}/a.jpg")
    assert load_photo(item.image).pixels.shape == (1, 1, 3)
    assert ids(f"{server}/a.jpg?key=/1") == ["a.jpg?key=/1"]


def test_a_list_may_name_urls_and_lie_behind_one(server, folder):
    (folder / "list.csv").write_text(f"id,path\none,{server}/a.jpg\ntwo,b/1.jpg\ngone,{server}/gone.jpg\nodd,odd://a.jpg\n")
    for place in (str(folder / "list.csv"), f"{server}/list.csv", f"{server}/list.csv?key=/1"):
        assert ids(place) == ["one", "two", "gone", "odd"]
        assert unreadable(place) == ["gone", "odd"]


def test_a_folder_may_be_a_page_of_links(server):
    assert ids(f"{server}/b/") == ["1.jpg", "c/2.TIFF"]


def test_servers_that_do_not_answer_are_told_of(server):
    refused(f"{server}/gone.jpg", match=r"gone.jpg cannot be read \(404")
    refused("http://127.0.0.1:9/a.jpg", match=r"a.jpg cannot be read \(.*127.0.0.1:9")


def test_urls_of_no_known_kind_are_refused():
    refused("odd://a.jpg", match=r"odd://a.jpg cannot be read \(.*Protocol not known: odd")
    refused("s3://a/b.jpg", match=r"s3://a/b.jpg cannot be opened: Install s3fs")


def test_without_fsspec_urls_are_refused_and_paths_are_not(folder, monkeypatch):
    take_fsspec_away(monkeypatch)
    refused("memory://a.jpg", match=r"opened by fsspec, which is not installed: pip install 'camrt\[batch\]'")
    assert ids(str(folder)) == sorted(NAMES)
