"""The engine of a Ray cluster: a pool of actors, each with a worker of its own, takes parts as Ray Data hands them out.

A photo that kills takes the worker below its actor, never the actor.  Where an actor or a whole node is lost, Ray gives the
part to another, which makes its shard anew.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import platform
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from camrt import errors
from camrt.errors import BatchError, CamrtError, MethodUnavailable, ParameterError, one_line
from camrt.markup import several
from camrt.scale.job import Job, Setup, Shard
from camrt.scale.keeper import Keeper, Tick

RESTARTS = 20  # of an actor, and
RETRIES = 10  # of a part, that a node or an actor took with it
BLOCKS = 10_000  # of a run: more parts than that share one
ANSWER = 10.0  # seconds in which a cluster must answer
STORE_MEMORY = 256 << 20  # bytes of Ray's object store on a cluster of this machine alone: only the names of parts pass through


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster as an engine.

    Attributes
    ----------
    workers : (int, int) or None
        Fewest and most; by default 1 to as many as fit.
    gpus : float or None
        GPUs of each worker, or a share of one; by default 1 where the cluster has any.
    cpus : int or None
        CPUs of each worker, and threads of its network where that runs on the CPU; by default 1.
    address : str or None
        Of a cluster, HOST:PORT; by default that of the environment's RAY_ADDRESS, else a cluster of this machine is started.
    """

    workers: tuple[int, int] | None = None
    gpus: float | None = None
    cpus: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MethodUnavailable("A Ray cluster needs the extra ray: pip install 'camrt[ray]'.")

    def __call__(self, setup: Setup, jobs: Iterable[Job], tick: Tick) -> Generator[Shard, None, None]:
        """Yield the shards of jobs, as they are done.

        Raises
        ------
        BatchError
            There is no such cluster, or it has too little for one worker.
        CamrtError
            What a worker met that is not of one photo.
        """
        rows = [{"number": job.number, "offset": job.offset, "length": job.length} for job in jobs]
        if not rows:
            return
        with _connected(self.address) as ray, _quiet(ray):
            gpus, cpus, (fewest, most) = self._resources(ray.cluster_resources())
            if not gpus and not setup.loading.get("threads"):
                setup = replace(setup, loading={**setup.loading, "threads": cpus})
            pool = ray.data.ActorPoolStrategy(min_size=fewest, max_size=most, initial_size=most)
            source = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of the limits, which Ray 2.64 no longer takes
                done = source.map(
                    Explaining, fn_constructor_args=(setup,), compute=pool, num_gpus=gpus or None, num_cpus=cpus,
                    max_restarts=RESTARTS, max_task_retries=RETRIES,
                )  # fmt: skip
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                for shard, error in zip(batch["shard"], batch["error"], strict=True):
                    if error:
                        kind, _, told = error.partition(" ")
                        raise getattr(errors, kind)(told)
                    yield Shard(**json.loads(shard))

    def _resources(self, have: Mapping[str, float]) -> tuple[float, int, tuple[int, int]]:
        """Return GPUs and CPUs of each worker, and the fewest and most workers.

        Raises
        ------
        BatchError
            The cluster has too little for one worker.
        """
        gpus = self.gpus if self.gpus is not None else float(have.get("GPU", 0) >= 1)
        cpus = self.cpus or 1
        fit = int(have.get("CPU", 0) // cpus)
        if gpus:  # of a share, whole ones fit on each GPU: two GPUs at 0.4 have room for four
            fit = min(fit, int(have.get("GPU", 0) // gpus) if gpus >= 1 else int(have.get("GPU", 0)) * int(1 // gpus))
        fewest, most = self.workers or (1, max(fit, 1))
        if fit < fewest:
            there = f"{have.get('GPU', 0):g} GPUs and {have.get('CPU', 0):g} CPUs, room for {fit}"
            raise BatchError(
                f"At least {several(fewest, 'worker')}, each with GPUs: {gpus:g} and CPUs: {cpus}, are asked for; the cluster "
                f"has {there}. Ask for less: --workers, --gpus-per-worker, --cpus-per-worker."
            )
        return gpus, cpus, (fewest, min(most, fit))


class Explaining:
    """An actor: it keeps a worker, and has it explain one part after the other.

    Parameters
    ----------
    setup : Setup
    """

    def __init__(self, setup: Setup):
        self._keeper = Keeper(setup)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        try:
            (shard,) = self._keeper.run([Job(row["number"], row["offset"], row["length"])])
        except CamrtError as error:
            return {"shard": "", "error": f"{type(error).__name__} {error} (On the node {platform.node()}.)"}
        return {"shard": json.dumps(asdict(shard)), "error": ""}


def read_workers(text: str | None) -> tuple[int, int] | None:
    """Return the fewest and most workers that "MIN:MAX", or one number, means.

    Raises
    ------
    ParameterError
        It means nothing.

    Examples
    --------
    >>> read_workers("2:8"), read_workers("4")
    ((2, 8), (4, 4))
    """
    if text is None:
        return None
    fewest, _, most = text.partition(":")
    if not (fewest.isdecimal() and (most or fewest).isdecimal() and 1 <= int(fewest) <= int(most or fewest)):
        raise ParameterError(f"workers must be MIN:MAX, for instance 1:8, or one number, got {text!r}.")
    return int(fewest), int(most or fewest)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one of this machine, and yield Ray; what was connected before stays so."""
    address = address or os.environ.get("RAY_ADDRESS")
    if "ray" not in sys.modules:  # which reads these when it is imported
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports usage by default
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ writes to the terminal of who connects
        if not address:  # a cluster listens at every address of its machine, so a token keeps others out
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = importlib.import_module("ray")
    importlib.import_module("ray.data")
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    handler = signal.getsignal(signal.SIGTERM)
    with ExitStack() as stack:
        try:
            if address:
                _check_answers(address)
                ray.init(address, **options)
            else:
                folder = tempfile.mkdtemp(prefix="ray-")  # short: the path of a socket has at most 107 bytes
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                ray.init("local", include_dashboard=False, object_store_memory=STORE_MEMORY, _temp_dir=folder, **options)
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, by what is wrong with the address
            raise BatchError(f"No Ray cluster at {address or 'this machine'}: {one_line(error)}") from None
        stack.callback(ray.shutdown)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # which Ray changed
        yield ray


def _check_answers(address: str) -> None:
    """Raise an OSError where nothing answers at HOST:PORT, for which Ray would look for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Have Ray Data print no progress of its own, and go on without parts that it gave up."""
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    mine = {"enable_progress_bars": False, "print_on_execution_start": False, "max_errored_blocks": -1}
    before, level = {name: getattr(context, name) for name in mine}, log.level
    for name, value in mine.items():
        setattr(context, name, value)
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)
