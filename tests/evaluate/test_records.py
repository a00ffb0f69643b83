from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import camrt
from camrt.evaluate.records import FILE, Records

from ..conftest import ROOT

ASKED = {"protocol": "rise", "points": None, "groups": ["adcc"]}
BEFORE = json.dumps({"kind": "camrt-evaluation", "version": 1, "asked": ASKED}).encode() + b"\n"


def kept(folder, asked=ASKED):
    records = Records(folder, asked)
    records.close()
    return records.lines


def test_what_was_added_is_there_again(tmp_path):
    records = Records(tmp_path / "new", ASKED)
    records.add(photo="ä.png", error="empty")
    records.add(variant="cam", memory=21.5, device_memory=None)
    records.sync()
    records.close()
    again = kept(tmp_path / "new")
    assert again == [{"photo": "ä.png", "error": "empty"}, {"variant": "cam", "memory": 21.5, "device_memory": None}]


def test_lines_are_found_by_their_photo(tmp_path):
    records = Records(tmp_path, ASKED)
    records.add(photo="a", error="empty")
    records.add(variant="cam", unavailable="no linear tail")
    records.close()
    assert [records.about(photo) for photo in ("a", None, "b")] == [records.lines[:1], records.lines[1:], []]


@pytest.mark.parametrize("torn", [b'{"photo": "b', b'{"photo": "b"}', b"\x00\x00"])
def test_a_torn_last_line_is_cut_off_and_the_rest_goes_on(tmp_path, torn):
    records = Records(tmp_path, ASKED)
    records.add(photo="a", error="empty")
    records.close()
    with (tmp_path / FILE).open("ab") as file:
        file.write(torn)
    records = Records(tmp_path, ASKED)
    records.add(photo="c", error="empty")
    records.close()
    assert [line["photo"] for line in kept(tmp_path)] == ["a", "c"]


def test_a_file_that_was_torn_in_its_first_line_starts_anew(tmp_path):
    (tmp_path / FILE).write_bytes(b'{"kind": "camrt')
    assert kept(tmp_path) == []


def test_results_of_another_question_are_refused_by_what_differs(tmp_path):
    kept(tmp_path)
    with pytest.raises(camrt.ParameterError, match="protocol was 'rise', is 'group-cam'"):
        Records(tmp_path, ASKED | {"protocol": "group-cam"})
    assert kept(tmp_path) == []


def test_results_of_another_network_are_told_as_such_whatever_its_classes(tmp_path):
    (tmp_path / FILE).write_bytes(BEFORE + b'{"target": 900}\n')
    with pytest.raises(camrt.ParameterError, match="protocol was 'rise', is 'group-cam'"):
        Records(tmp_path, ASKED | {"protocol": "group-cam"}, classes=8)


@pytest.mark.parametrize(
    "content",
    [
        b"no json\n",
        b"[1]\n",
        b'{"kind": "other", "version": 1}\n',
        b"\xff\n",
        b'{"kind": "camrt-evaluation", "version": 99}\n',
        b"precious, and without an end of line",
        b'{"kind": "camrt-evaluation", "version": 1, "asked": [1]}\n',
        BEFORE + b"7\n",
        BEFORE + b"[" * 100_000 + b"\n",
        BEFORE + b'{"photo": 3}\n',
        BEFORE + b'{"photo": [3], "error": "empty"}\n',
        BEFORE + b'{"error": "empty"}\n',
        BEFORE + b'{"variant": "cam", "memory": NaN, "device_memory": null}\n',
        BEFORE + b'{"variant": "cam", "memory": 1e999, "device_memory": null}\n',
        BEFORE + b'{"variant": "cam", "memory": true, "device_memory": null}\n',
    ],
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(camrt.ParameterError, match="is not what camrt evaluate writes"):
        Records(tmp_path, ASKED)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_number_that_json_lacks_is_never_written(tmp_path):
    records = Records(tmp_path, ASKED)
    with pytest.raises(ValueError, match="Out of range"):
        records.add(value=float("nan"))
    records.close()
    assert kept(tmp_path) == []


def test_a_full_disk_is_told_and_what_was_there_is_kept(tmp_path):
    code = (
        "import resource; from pathlib import Path; from camrt.errors import ParameterError\n"
        "from camrt.evaluate.records import Records\n"
        f"records = Records(Path({str(tmp_path)!r}), {ASKED!r}); records.add(photo='a', error='empty')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "try: records.add(photo='b', error='long' * 100)\n"
        "except ParameterError as error: print(error)\n"
        "records.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "cannot be written (File too large). What is there so far is kept." in done.stdout
    assert (tmp_path / FILE).stat().st_size == 200
    assert [line["photo"] for line in kept(tmp_path)] == ["a"]


def test_a_restart_does_not_take_the_results_of_a_process_that_runs(tmp_path):
    records = Records(tmp_path, ASKED)
    records.add(photo="a", error="empty")
    with pytest.raises(camrt.ParameterError, match="another evaluation writes its results there"):
        Records(tmp_path, ASKED, restart=True)
    records.close()
    assert len(kept(tmp_path)) == 1


def test_two_processes_never_write_to_one_report(tmp_path):
    code = f"from pathlib import Path; from camrt.evaluate.records import Records\nr = Records(Path({str(tmp_path)!r}), {ASKED!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(camrt.ParameterError, match="another evaluation writes its results there"):
            Records(tmp_path, ASKED)
        other.kill()
    for _ in range(50):
        try:
            return Records(tmp_path, ASKED).close()
        except camrt.ParameterError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its process")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(camrt.ParameterError, match="cannot be written"):
        Records(tmp_path / "file" / "report", ASKED)
