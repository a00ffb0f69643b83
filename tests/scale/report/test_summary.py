from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camrt.errors import BatchError
from camrt.scale.report import open_dataset, summarise, survey

from .datasets import found, summary_of, write


def test_the_figures_are_those_of_numpy(tmp_path, random):
    shards, maps = [], {i: [] for i in range(4)}
    for _ in range(3):
        photos = []
        for i in range(30):
            target = int(random.integers(0, 4))
            heatmap = (random.random((5, 7)) - 0.2).astype(np.float16)
            if i % 10 == 0:
                photos.append([found(target, None, probability=0.25)])
                maps[target].append((None, 0.25))
            else:
                photos.append([found(target, heatmap, probability=0.5), found(5, heatmap[::-1], rank=1)])
                maps[target].append((np.maximum(heatmap.astype(np.float64), 0), 0.5))
        shards.append(photos)
    summary = summary_of(write(tmp_path / "out", shards))
    flat = {target: np.array([m.ravel() for m, _ in of if m is not None]) for target, of in maps.items()}
    for one in summary.classes:
        mine, rest = flat[one.index], np.concatenate([flat[i] for i in flat if i != one.index])
        pairs, n = np.corrcoef(mine, rest), len(mine)
        own = pairs[:n, :n][~np.eye(n, dtype=bool)]
        assert (one.photos, one.failed, one.maps) == (len(maps[one.index]), len(maps[one.index]) - n, n)
        assert one.probability == pytest.approx(np.mean([p for _, p in maps[one.index]]))
        assert one.agreement == pytest.approx(own.mean(), abs=1e-5)
        assert one.others == pytest.approx(pairs[:n, n:].mean(), abs=1e-5)
        np.testing.assert_allclose(one.heatmap, mine.mean(axis=0).reshape(5, 7), atol=1e-6)
    everything = np.corrcoef(np.concatenate(list(flat.values())))
    assert summary.agreement == pytest.approx(everything[~np.eye(len(everything), dtype=bool)].mean(), abs=1e-5)
    shortfalls = sorted(
        (row.sum() - 1) / (n - 1) - (pairs.sum() - n) / (n * (n - 1))
        for pairs, n in ((np.corrcoef(of), len(of)) for of in flat.values()) for row in pairs
    )  # fmt: skip
    assert [value for value, _ in summary.survey.strangest] == pytest.approx(shortfalls[:24], abs=1e-5)
    assert summary.survey.histogram[5] == 9
    assert summary.survey.histogram[10] == 81
    assert [one.index for one in summary.classes] == sorted(flat, key=lambda i: (-len(maps[i]), i))


def test_a_shard_that_goes_while_it_is_read_is_an_error(cornered):
    dataset = open_dataset(cornered)
    known = survey(dataset)
    for shard in Path(cornered, "data").iterdir():
        shard.unlink()
    with pytest.raises(BatchError, match="missing or damaged"):
        summarise(dataset, known)
