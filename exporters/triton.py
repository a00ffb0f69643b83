"""A model of Triton Inference Server: the compiled file, and the configuration by which its ONNX Runtime backend loads that.

Batches: where max_batch_size is above 0, the first dimension of every tensor is the batch. It is not among `dims`, must be the
same in all inputs of a request, and is what Triton puts requests together along. All outputs begin with N, and `target` may
have N rows: this holds where every image has its own row of targets, (N, T), never (1, T) for all.

A network that takes one image at a time has 1 for N, and the backend refuses that with a max_batch_size above 0. Its
max_batch_size is 0, and `dims` are whole.

`target` has no default: the backend knows optional inputs only where max_batch_size is 0.

Requests are put together when that is asked for alone: a target that is no class stops the graph, and with it everything that
came in the same batch. Triton puts together only what has the same T.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camrt import __version__
from camrt.bundle import open_bundle
from camrt.compiled import PREFIX
from camrt.errors import ExportError, ParameterError, did_you_mean
from camrt.files import write_together
from camrt.manifest import MANIFEST, Manifest
from camrt.runtime import Session
from exporters.compile import Built, Compiled, build, resolve
from exporters.fusion.proof import open_graph

VERSION, MODEL, CONFIG, LABELS = "1", "model.onnx", "config.pbtxt", "labels.txt"
BATCH = 8  # images of a request or of several put together; their masked images come in chunks, their gradients do not
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")  # a folder, and a part of URLs
KINDS = ("auto", "gpu", "cpu")
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}
# On GPUs, as camrt sets them: no timing of every algorithm for each size of a batch; memory as asked for, not doubled.
SETTINGS = {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}
CONTROL = {**{chr(code): f"\\{code:03o}" for code in (*range(32), 127)}, '"': '\\"', "\\": "\\\\"}


def write_model(
    bundle: str | Path,
    repository: str | Path,
    *,
    name: str | None = None,
    pixels: str = "uint8",
    kind: str = "auto",
    max_batch_size: int | None = None,
    dynamic_batching: bool = False,
    force: bool = False,
    **options: Any,
) -> Compiled:
    """Write a bundle's network and its explanation into a model repository of Triton: a configuration, labels and the file.

    Parameters
    ----------
    bundle : path or name
    repository : path
        Made where it is missing.  The model's folder in it appears whole or not at all.
    name : str, optional
        Of the model, and of its folder; by default the bundle's.
    pixels : {"uint8", "float"}
        What the input `image` is.
    kind : {"auto", "gpu", "cpu"}
        Where Triton is to run it; auto is on GPUs where there are any.
    max_batch_size : int, optional
        Most images at once, by default 8; a network that takes one at a time has none.
    dynamic_batching : bool
        Triton puts requests together.
    force : bool
        Replace the model that is there.
    **options
        As `exporters.compile.build` takes them, without `require_target`.

    Raises
    ------
    ExportError
        The model exists, cannot be written, or the compiled file does not reproduce the Python runtime.
    ParameterError
        The name or the size of a batch cannot be, or the method cannot be one graph.
    """
    if kind not in KINDS:
        raise ParameterError(f"kind must be auto, gpu or cpu, got {kind!r}.{did_you_mean(str(kind), KINDS)}")
    manifest = open_bundle(bundle).manifest
    name = _check_name(manifest.name if name is None else name)
    batch = _check_batch(manifest, max_batch_size, dynamic_batching)
    folder = resolve(repository) / name
    check_folder(folder, force)
    built = build(bundle, pixels=pixels, require_target=True, **options)
    check_folder(folder, force)  # again, as that took a while
    contents = {CONFIG: _config(name, built, batch, kind, dynamic_batching).encode(), f"{VERSION}/{MODEL}": built.data}
    if manifest.labels:
        contents[LABELS] = "".join(f"{' '.join(label.split())}\n" for label in manifest.labels).encode()
    _place(folder, contents)
    return Compiled(folder / VERSION / MODEL, built)


# --- what is asked for ------------------------------------------------------------------------------------------------------
def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        likely = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("_.-")[:128] or "camrt"
        raise ParameterError(
            f"{name!r} cannot be the name of a model in Triton: that has letters, digits, '_', '.' and '-', first a letter or "
            f"digit. Give one with --name, for instance {likely}."
        )
    return name


def _check_batch(manifest: Manifest, size: int | None, dynamic: bool) -> int:
    """Return max_batch_size."""
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1 << 20):
        raise ParameterError(f"max_batch_size must be a whole number, at least 1, got {size!r}.")
    if manifest.one_by_one is not None and (size is not None or dynamic):
        raise ParameterError(
            f"The network takes one image at a time ({manifest.one_by_one}). Leave out --max-batch-size and --dynamic-batching."
        )
    return 0 if manifest.one_by_one is not None else BATCH if size is None else size


def check_folder(folder: Path, force: bool) -> None:
    """Refuse a model that exists and was not asked to be replaced, and what camrt has not written.

    Raises
    ------
    ExportError
    """
    repository = folder.parent
    try:
        parent = next(path for path in folder.parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ExportError(f"{folder} cannot be written: {parent} is no folder that may be written to. Choose another.")
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ExportError(f"{folder} is no folder. Choose another --name, or another place with -o.")
        if any((repository / file).exists() for file in (MANIFEST, CONFIG)):
            what = "a bundle" if (repository / MANIFEST).exists() else "a model"
            raise ExportError(f"{repository} is {what}, and a repository holds folders of models. Choose another with -o.")
        found = {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()
    except OSError as error:
        raise ExportError(f"{folder}: cannot be looked at ({error.strerror}). Choose another place with -o.") from None
    if others := sorted(found - {CONFIG, LABELS, VERSION, f"{VERSION}/{MODEL}"}):
        raise ExportError(f"{folder} exists and is not replaced, as it holds {others[0]!r}. Choose another --name.")
    if found and not force:
        raise ExportError(f"{folder} exists. Choose another --name, or replace it with --force.")


# --- the configuration ------------------------------------------------------------------------------------------------------
def _config(name: str, built: Built, batch: int, kind: str, dynamic: bool) -> str:
    """Return the configuration in protobuf's text format; its tensors are as ONNX Runtime sees them, as the backend does."""
    session = open_graph(built.data)
    entries = session.get_modelmeta().custom_metadata_map
    told = {key: entries[key] for key in sorted(entries) if key.startswith(PREFIX) and key != f"{PREFIX}labels"}
    lines = [
        f"# Written by camrt {__version__}.",
        f"name: {_quoted(name)}",
        'platform: "onnxruntime_onnx"',
        'backend: "onnxruntime"',
        f"default_model_filename: {_quoted(MODEL)}",
        f"max_batch_size: {batch}",
        *_tensors(session, batch, bool(built.manifest.labels)),
        f"instance_group [ {{ kind: KIND_{kind.upper()}, count: 1 }} ]",
        *(["dynamic_batching { }"] if dynamic else []),
        *(
            f"parameters {{ key: {_quoted(key)}, value: {{ string_value: {_quoted(value)} }} }}"
            for key, value in {**SETTINGS, **told}.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _tensors(session: Session, batch: int, labels: bool) -> list[str]:
    """Return the inputs and outputs; the labels are those of the logits, the one output with a value for every class."""
    lines = []
    for field, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for value in values:
            dims = [size if isinstance(size, int) else -1 for size in value.shape[1 if batch else 0 :]]
            named = f", label_filename: {_quoted(LABELS)}" if labels and value.name == "logits" else ""
            lines.append(f"{field} {{ name: {_quoted(value.name)}, data_type: {TYPES[value.type]}, dims: {dims}{named} }}")
    return lines


def _quoted(text: str) -> str:
    r"""Return a string of protobuf's text format.

    >>> print(_quoted('a "b"'))
    "a \"b\""
    """
    return f'"{"".join(CONTROL.get(letter, letter) for letter in text)}"'


# --- the folder -------------------------------------------------------------------------------------------------------------
def _place(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder, whole or not at all; one that is there is moved away first and removed last."""
    work = _workplace(folder.parent) / f".camrt.{secrets.token_hex(4)}.part"
    new, old = work / "new", work / "old"
    try:
        for name, data in contents.items():
            write_together((new / name).parent, {Path(name).name: data})
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror or error}); nothing was changed.") from None
    finally:
        if folder.exists() or not old.exists():
            shutil.rmtree(work, ignore_errors=True)


def _workplace(repository: Path) -> Path:
    """Return where to build: outside the repository where it can be, as Triton takes every folder in there for a model."""
    if not repository.exists():
        return next(path for path in repository.parents if path.exists())
    beside = repository.parent
    crosses = beside.stat().st_dev != repository.stat().st_dev  # a file system's border, over which nothing is renamed
    return repository if crosses or not os.access(beside, os.W_OK) else beside
