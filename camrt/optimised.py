"""Graphs as ONNX Runtime optimised them for this machine, kept beside the bundle: they open two to six times as fast.

Their weights stay in the file, which the system maps into memory once for all processes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import secrets
import shutil
from functools import cache, partial
from pathlib import Path

from camrt import __version__
from camrt.bundle import Bundle
from camrt.cache import MAX_LIST
from camrt.errors import CamrtError
from camrt.files import read_regular, sha256_of
from camrt.providers import Choice
from camrt.runtime import Session, build, runtime
from camrt.session import RUNNING, open_session

LARGEST = 256 << 20  # bytes of weights; of larger ones, reading is most of the time
LIST = "files.json"  # of the optimised files, with their sizes and hashes; written last
KEY = re.compile(r"[0-9a-f]{16}-cpu-onnxruntime.+-[0-9a-f]{12}")


def open_graph(bundle: Bundle, graph: str, choice: Choice, threads: int, *, spinning: str = RUNNING) -> tuple[Session, str]:
    """Return a session of one of the bundle's graphs, and the provider that runs it.

    On the CPU the optimised graph is taken where it was kept, and kept where it was not.

    Raises
    ------
    ProviderError, BundleError
        As `open_session`; the bundle was replaced since it was verified.
    """
    path = bundle.path(graph)
    # Gradients are mostly asked for one at a time: then copies of the weights gain nothing, and the file's own are shared.
    # Those of a tail of hundreds of megabytes gain a tenth of an explanation's milliseconds, and cost their room once more.
    prepack = graph != "gradient" and (graph != "tail" or bundle.weights_size <= LARGEST)
    start = partial(open_session, choice=choice, threads=threads, spinning=spinning, prepack=prepack)
    if not bundle.cache.enabled or choice.names[0] != "cpu" or bundle.weights_size > LARGEST:
        return start(path)
    place = bundle.cache.folder / _key(bundle) / graph
    if _is_whole(bundle, place, path.name):
        try:
            return start(place / path.name, optimise=False)
        except CamrtError:  # a process of another camrt took it away, or ONNX Runtime does not take what it wrote
            shutil.rmtree(place, ignore_errors=True)
    part = bundle.cache.folder / f".{secrets.token_hex(8)}.part"
    try:
        return _open_and_keep(bundle, graph, start, part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open_and_keep(
    bundle: Bundle, graph: str, start: partial[tuple[Session, str]], part: Path, place: Path
) -> tuple[Session, str]:
    """Open a graph and write it down, optimised, whole or not at all."""
    path = bundle.path(graph)
    try:
        if not bundle.cache.make():
            return start(path)
        part.mkdir(mode=0o755)
        opened = start(path, keep=part / path.name)
    except (OSError, CamrtError):  # the disk is full, perhaps; if not, this fails too
        return start(path)
    bundle.check_unchanged(graph)  # what was opened is what was verified: it is kept under that bundle's name
    _settle(bundle, part, place)
    return opened


def _settle(bundle: Bundle, part: Path, place: Path) -> None:
    """Move what was written into its place, unless another process was first, and drop what an older bundle left."""
    try:
        files = {file.name: [file.stat().st_size, sha256_of(file)] for file in part.iterdir()}
        (part / LIST).write_text(json.dumps(files))
        place.parent.mkdir(mode=0o755, exist_ok=True)
        if not _is_whole(bundle, place, f"{place.name}.onnx"):
            shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        for other in bundle.cache.folder.iterdir():
            if KEY.fullmatch(other.name) and not other.name.startswith(bundle.sha256[:16]):
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        return


def _is_whole(bundle: Bundle, folder: Path, name: str) -> bool:
    """Tell whether a graph of that name is kept there, with all its files as they were written."""
    try:
        files = json.loads(read_regular(folder / LIST, MAX_LIST))
        whole = name in files and all(_is_as_listed(bundle, folder / file, *listed) for file, listed in files.items())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return False
    bundle.cache.save()
    return whole


def _is_as_listed(bundle: Bundle, file: Path, size: int, sha256: str) -> bool:
    return file.stat().st_size == size and bundle.cache.sha256(file, sha256) == sha256


def _key(bundle: Bundle) -> str:
    return f"{bundle.sha256[:16]}-cpu-{runtime().replace(' ', '').lower()}-{_maker()}"


@cache
def _maker() -> str:
    """Return what tells apart what wrote the graph: camrt, the build of ONNX Runtime, and CPUs for which it differs."""
    described = f"{__version__} {build()} {platform.machine()} "
    try:
        with Path("/proc/cpuinfo").open(errors="replace") as file:
            described += next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        described += platform.processor()
    return hashlib.sha256(described.encode()).hexdigest()[:12]
