"""The Ray engine, on a real cluster of two nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from camrt.errors import BatchError, BundleError, ParameterError
from camrt.scale.asked import ask
from camrt.scale.cluster import Cluster, read_workers

from .conftest import POISON, Kept, mark, rows_of, run
from .test_batch import files_below, parent_of, same_but_for_place, until, workers

pytest.importorskip("ray", reason="Ray is not installed: pip install 'camrt[ray]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves sockets and log files to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


MARK = "CAMRT_TEST_NODES"  # in the environment of all that runs on the cluster


@pytest.fixture(scope="module")
def nodes(decoder_path):
    """A cluster whose two nodes have one CPU each, and whose Python decodes as `decoder` does."""
    from ray.cluster_utils import Cluster as Nodes

    mine = {
        MARK: "1",
        "PYTHONPATH": str(decoder_path), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4",  # a lost node shows in two seconds
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    shape = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Nodes(initialize_head=True, head_node_args=shape)
    cluster.add_node(**shape)
    cluster.shape = shape
    yield cluster
    cluster.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def engine(nodes):
    return Cluster(workers=(2, 2), address=nodes.address)


def test_a_cluster_gives_the_rows_that_one_machine_gives(engine, tiny_bundle, photos, undisturbed, tmp_path):
    manifest = run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=5), engine)
    assert (manifest.parts, manifest.photos, manifest.state) == (5, 22, "finished")
    assert rows_of(tmp_path).equals(undisturbed)


def test_a_photo_that_kills_is_found_on_a_cluster_too(engine, tiny_bundle, photos, tmp_path):
    mine = shutil.copytree(photos, tmp_path / "photos")
    mark(mine / "07.png", POISON)
    manifest = run(ask(tiny_bundle, [str(mine)], str(tmp_path / "out"), shard_size=5), engine)
    frame = rows_of(tmp_path / "out").to_pandas()
    assert (manifest.photos, manifest.outcomes["crashed"]) == (22, 1)
    assert list(frame.id[frame.outcome == "crashed"]) == ["07.png"]
    assert frame.error.dropna().tolist() == ["The photo killed its worker: signal SIGSEGV."]


class Harming(Kept):
    """Does harm once the first shard is there."""

    def __init__(self, harm):
        super().__init__()
        self._harm = harm

    def shard(self, shard):
        super().shard(shard)
        if len(self.shards) == 1:
            self._harm()


@pytest.mark.parametrize("victim", ["worker", "actor"])
def test_what_is_killed_on_the_way_is_done_again(engine, tiny_bundle, slow_photos, undisturbed, tmp_path, victim):
    def harm():
        worker = min(workers(MARK))
        os.kill(worker if victim == "worker" else parent_of(worker), signal.SIGKILL)

    watch = Harming(harm)
    ask(tiny_bundle, [str(slow_photos)], str(tmp_path / "out"), shard_size=5).run(engine, watch)
    assert sorted(watch.shards) == [0, 1, 2, 3, 4]
    assert same_but_for_place(rows_of(tmp_path / "out"), undisturbed)
    assert files_below(tmp_path / "out" / "data") == {f"part-00000{i}.parquet" for i in range(5)}


def test_a_node_that_is_lost_loses_nothing(nodes, tiny_bundle, slow_photos, undisturbed, tmp_path):
    node = nodes.add_node(**nodes.shape)

    def harm():
        nodes.remove_node(node, allow_graceful=False)

    watch = Harming(harm)
    engine = Cluster(workers=(1, 3), address=nodes.address)
    ask(tiny_bundle, [str(slow_photos)], str(tmp_path / "out"), shard_size=3).run(engine, watch)
    assert sorted(watch.shards) == list(range(8))
    assert same_but_for_place(rows_of(tmp_path / "out"), undisturbed)
    assert len(files_below(tmp_path / "out" / "data")) == 8


def test_a_run_whose_driver_was_killed_goes_on(nodes, tiny_bundle, slow_photos, undisturbed, tmp_path):
    output = tmp_path / "out"
    command = [
        sys.executable, "-m", "camrt", "batch", str(tiny_bundle), str(slow_photos), "-o", str(output), "--shard-size", "5",
        "--engine", "ray", "--address", nodes.address, "--workers", "1:2",
    ]  # fmt: skip
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: list(output.glob("data/part-*")), 60)
    driver.kill()
    driver.wait()
    until(lambda: not workers(MARK), 30)
    done = len(list(output.glob("data/part-*")))
    assert done < 5
    finished = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert finished.returncode == 0, finished.stderr
    assert "22 photos, 22 rows in 5 shards" in finished.stdout
    assert same_but_for_place(rows_of(output), undisturbed)


def test_a_bundle_that_a_node_lacks_is_told_with_the_nodes_name(engine, tiny_bundle, photos, tmp_path):
    import platform

    mine = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    asked = ask(mine, [str(photos)], str(tmp_path / "out"), shard_size=11)
    shutil.rmtree(mine)
    with pytest.raises(BundleError, match=f"There is no bundle.*On the node {platform.node()}"):
        run(asked, engine)


def test_more_than_the_cluster_has_is_refused_at_once(nodes, tiny_bundle, photos, tmp_path):
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path / "out"))
    with pytest.raises(BatchError, match="1 worker, each with GPUs: 1 and CPUs: 1, are asked for; the cluster has 0 GPUs"):
        run(asked, Cluster(gpus=1, address=nodes.address))


def test_an_address_where_nothing_answers_is_told_at_once(tiny_bundle, photos, tmp_path):
    with pytest.raises(BatchError, match="No Ray cluster at 127.0.0.1:1: .*refused"):
        run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out")), Cluster(address="127.0.0.1:1"))


@pytest.mark.parametrize("text", ["", "0:1", "3:2", "a", "1:b", "-1:2"])
def test_workers_that_mean_nothing_are_refused(text):
    with pytest.raises(ParameterError, match="workers must be MIN:MAX"):
        read_workers(text)
