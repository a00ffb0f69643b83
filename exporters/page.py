"""A static web page that explains photos in the browser: the compiled file, what the page must know of it, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from camrt import __version__
from camrt.errors import ExportError
from camrt.heatmap import Outcome
from camrt.manifest import MANIFEST
from camrt.methods import get_method
from camrt.render import colors
from exporters.compile import Built, Compiled, build, check_target, resolve, write

MODEL, ABOUT = "model.explain.onnx", "about.json"
PAGE = ("index.html", "explain.css", "explain.js", "resize.js")
RUNTIME = "1.30.0"  # of onnxruntime-web
FETCH = f"""npm pack --silent onnxruntime-web@{RUNTIME}
tar xzf onnxruntime-web-{RUNTIME}.tgz --strip-components=2 \\
    package/dist/ort.wasm.bundle.min.mjs package/dist/ort-wasm-simd-threaded.wasm
rm onnxruntime-web-{RUNTIME}.tgz"""
SERVE = "python3 -m http.server --bind 127.0.0.1"  # or any other static host


def write_page(bundle: str | Path, folder: str | Path, *, force: bool = False, **options: Any) -> Compiled:
    """Write a folder that any static host can serve: visitors drop a photo and see what the network names, and where it looked.

    ONNX Runtime for browsers is not among what is written; `FETCH`, run in the folder, brings it.

    Parameters
    ----------
    bundle : path or name
    folder : path
        Made where it is missing.
    force : bool
        Replace the page that is there.
    **options
        As `exporters.compile.build` takes them, without `pixels` and `require_target`.

    Raises
    ------
    ExportError
        The page exists, cannot be written, or the compiled file does not reproduce the Python runtime.
    """
    folder = resolve(folder)
    if (folder.exists() and not folder.is_dir()) or (folder / MANIFEST).exists():
        kind = "a bundle" if folder.is_dir() else "a file"
        raise ExportError(f"{folder} is {kind}, and the page needs a folder of its own. Choose another with --web.")
    for name in (*PAGE, ABOUT, MODEL):
        check_target(folder / name, force)
    built = build(bundle, pixels="uint8", require_target=True, **options)
    contents = {name: (Path(__file__).parent / "web" / name).read_bytes() for name in PAGE}
    contents |= {MODEL: built.data, ABOUT: json.dumps(_about(built), ensure_ascii=False).encode()}
    for name in contents:
        check_target(folder / name, force)  # again, as that took a while
    write(folder, contents)
    return Compiled(folder / MODEL, built)


def _about(built: Built) -> dict[str, Any]:
    """Return what the page must know: names, sizes, how a photo is resized, the colours of a heatmap."""
    manifest = built.manifest
    preprocess = manifest.preprocess
    mean = np.resize(preprocess.mean, 3)[:: -1 if preprocess.color == "bgr" else 1]
    return {
        "name": manifest.name,
        "classes": manifest.classes,
        "labels": list(manifest.labels),
        "size": list(manifest.size),
        "preprocess": preprocess.to_json(),
        "padding": np.clip(np.rint(mean / preprocess.scale), 0, 255).astype(int).tolist(),
        "outcomes": [outcome.word for outcome in Outcome],
        "colormap": colors(np.arange(256, dtype=np.float32)[None] / 255)[0].tolist(),
        "method": built.method,
        "citation": get_method(built.method).citation,
        "version": __version__,
        "fetch": FETCH,
    }
