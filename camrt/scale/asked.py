"""What is asked of a dataset, checked before anything is listed or written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from camrt.bundle import find_bundle, open_bundle
from camrt.errors import ParameterError
from camrt.explainer import DEFAULT_METHOD
from camrt.photo import MAX_PIXELS
from camrt.question import read_question
from camrt.scale.batch import Batch
from camrt.scale.inputs import Inputs
from camrt.scale.job import SHARD_SIZE, STALL, Setup
from camrt.scale.lists import Columns
from camrt.scale.location import is_url, plain

Location = str | os.PathLike[str]


def ask(
    bundle: str,
    inputs: Location | Sequence[Location],
    output: Location,
    *,
    method: str = DEFAULT_METHOD,
    parameters: Mapping[str, Any] | None = None,
    targets: Sequence[int | str] | None = None,
    top: int | None = None,
    versus: int | str | None = None,
    overlays: bool = False,
    columns: Columns | None = None,
    shard_size: int = SHARD_SIZE,
    max_pixels: int = MAX_PIXELS,
    loading: Mapping[str, Any] | None = None,
    simulate: bool = False,
    verify: bool = False,
    stall: float = STALL,
) -> Batch:
    """Return a dataset that is asked for; its `run` makes it.

    Parameters
    ----------
    bundle : path or name
        As `camrt.load` takes it.
    inputs : path, URL or sequence of these
        Folders, globs, lists and archives, local or URLs.
    output : path or URL
        Folder or URL of the dataset.
    method, parameters, targets, top, versus
        As in `Explainer.explain`, `parameters` as a mapping.
    overlays : bool, default False
        Write each heatmap over its photo, too.
    columns : Columns, optional
        Which columns of lists and Parquet files hold what.
    shard_size : int, default 1000
        Photos of a part.
    max_pixels : int
        Height × width of a photo above which it is not decoded.
    loading : mapping, optional
        What else `camrt.load` takes: providers, threads, …
    simulate : bool, default False
        Explain nothing, and invent the results.
    verify : bool, default False
        Compare the shards that are done with their checksums.
    stall : float, default 3600
        Seconds without anything done after which a worker is taken for dead, and the photo that it hangs on for one that kills.

    Raises
    ------
    BundleError
        The folder is no bundle, or not what its bundle.json says.
    UnknownTarget, UnknownMethod, ParameterError, MethodUnavailable
        What is asked for is not there, or not allowed.

    Examples
    --------
    ``ask("shapes", "photos", "heatmaps", top=2).run().outcomes`` is, for instance, ``{"ok": 1998, "unreadable": 1}``.
    """
    if shard_size < 1:
        raise ParameterError(f"shard_size must be at least 1 photo, got {shard_size}.")
    loading = {**(loading or {}), "max_pixels": max_pixels}
    folder = find_bundle(bundle).absolute()
    opened = open_bundle(folder, cache=loading.get("cache", True))
    question = read_question(opened.manifest, method, parameters or {}, targets=targets, top=top, versus=versus)
    columns = columns or Columns()
    places = [absolute(place, "input") for place in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    if columns.root is not None:
        columns = replace(columns, root=absolute(columns.root, "root"))
    asked = {
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256}, "method": question.method.name,
        "parameters": dict(question.settings), "classes": question.classes, "versus": question.versus, "inputs": places,
        "columns": asdict(columns), "shard_size": shard_size, "max_pixels": max_pixels, "overlays": overlays,
        "simulate": simulate,
    }  # fmt: skip
    setup = Setup(
        output=absolute(output, "output"),
        bundle=str(folder),
        bundle_sha256=opened.sha256,
        loading=loading,
        question={"method": method, "targets": targets, "top": top, "versus": versus, **(parameters or {})},
        overlays=overlays,
        simulate=simulate,
        stall=stall,
    )
    return Batch(setup, Inputs(places, columns, shard_size), asked, verify)


def absolute(location: Location, what: str) -> str:
    """Return a location that is the same from every folder.

    Raises
    ------
    ParameterError
        It is empty.
    """
    place = plain(os.fspath(location))
    if not place:
        raise ParameterError(f"The {what} is empty, and must be a path or a URL. A dot is the current folder.")
    return place if is_url(place) else os.path.abspath(place)
