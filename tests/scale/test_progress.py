from __future__ import annotations

import json

import numpy as np
import pytest

from camrt.scale.job import Shard
from camrt.scale.listing import UNKNOWN, Listing
from camrt.scale.manifest import Manifest
from camrt.scale.progress import Progress
from camrt.scale.store import Store


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def listing(*photos: int) -> Listing:
    return Listing(Store("nowhere"), np.array([(0, 0, count) for count in photos], np.int64))


def watched(tmp_path, clock, kind, *photos):
    said = []
    progress = Progress(kind, said.append, clock)
    manifest = Manifest.begin(Store(str(tmp_path)), {})
    manifest.set_parts(len(photos), None)
    progress.begin(manifest, listing(*photos), 0)
    return progress, manifest, said


def done(manifest, progress, part, photos, outcomes):
    shard = Shard(part, "", None, "", 1, photos, photos, outcomes, 1.0)
    manifest.add(shard)
    progress.shard(shard)


def test_machines_get_rate_and_remaining_time_and_outcomes(tmp_path, clock):
    progress, manifest, said = watched(tmp_path, clock, "json", 100, 100, 100)
    clock.now = 10.0
    progress.tick(50)
    clock.now = 20.0
    done(manifest, progress, 0, 100, {"ok": 98, "unreadable": 2})
    first, second, third = map(json.loads, said)
    assert (first["photos"], first["total"], first["remaining_s"]) == (0, 300, None)
    assert (second["photos"], second["rate"], second["remaining_s"]) == (50, 5.0, 50)
    assert third == {
        "event": "progress", "photos": 100, "total": 300, "shards": 1, "parts": 3, "rate": 5.0, "remaining_s": 40,
        "outcomes": {"ok": 98, "unreadable": 2},
    }  # fmt: skip


def test_people_read_a_bar_with_what_went_wrong(tmp_path, clock):
    progress, manifest, said = watched(tmp_path, clock, "bar", 1000, 3000)
    clock.now = 100.0
    done(manifest, progress, 0, 1000, {"ok": 990, "flat_map": 7, "crashed": 3})
    assert said[-1] == "██████░░░░░░░░░░░░░░░░░░  25%  1,000 of 4,000 photos  10.0/s  5 min 0 s left  7 flat map  3 crashed"


def test_what_was_done_before_does_not_count_for_the_rate(tmp_path, clock):
    progress, manifest, _ = watched(tmp_path, clock, "json", 100, 100)
    done(manifest, progress, 0, 100, {"ok": 100})
    said = []
    again = Progress("json", said.append, clock)
    again.begin(manifest, listing(100, 100), 0)
    clock.now = 4.0
    again.tick(20)
    assert json.loads(said[-1])["rate"] == 5.0


def test_lines_come_no_oftener_than_their_kind_allows(tmp_path, clock):
    progress, _, said = watched(tmp_path, clock, "log", 100)
    for _ in range(290):
        clock.now += 0.1
        progress.tick(1)
    assert len(said) == 1
    clock.now += 1.1
    progress.tick(1)
    assert len(said) == 2


def test_photos_of_archives_not_yet_read_are_estimated_by_those_that_are(tmp_path, clock):
    progress, manifest, said = watched(tmp_path, clock, "json", UNKNOWN, UNKNOWN)
    assert json.loads(said[-1])["total"] is None
    clock.now = 10.0
    done(manifest, progress, 0, 40, {"ok": 40})
    assert json.loads(said[-1])["total"] == 80


def test_shards_that_are_made_again_are_told(tmp_path, clock):
    said = []
    manifest = Manifest.begin(Store(str(tmp_path)), {})
    manifest.set_parts(1, None)
    Progress("log", said.append, clock).begin(manifest, listing(5), 3)
    assert said[0] == "3 shards gone or changed, made again"


def test_a_listing_tells_how_many_photos_it_has_found(clock):
    said = []
    progress = Progress("log", said.append, clock)
    progress.listing(1000)
    clock.now = 31.0
    progress.listing(500)
    assert said == ["Listing: 1,000 photos", "Listing: 1,500 photos"]
