"""Say what a file or folder is that is no ONNX model, and how it becomes one."""

from __future__ import annotations

from pathlib import Path

TF2ONNX = "python -m tf2onnx.convert"
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (  # where in the file, what stands there, what that means and what to do
    (4, b"TFL3", f"is a TFLite model. Convert it: {TF2ONNX} --tflite {{path}} --output model.onnx"),
    (0, b"\x89HDF", 'is an HDF5 file, of Keras perhaps. Load it there, and model.export("model.onnx", format="onnx")'),
    (0, b"version https://git-lfs", "is a pointer to a file that was not fetched. Run: git lfs pull"),
    (0, b"PK", 'is an archive. Unpack it; a .keras file is loaded in Keras, then model.export("model.onnx", format="onnx")'),
    (0, b"<", "is a page or markup, no model. Download the file itself"),
    (0, b"{", "is JSON, no model. Give the .onnx file"),
    (0, b"\x89PNG", "is a picture. Give the .onnx file; photos go to camrt explain"),
    (0, b"\xff\xd8", "is a picture. Give the .onnx file; photos go to camrt explain"),
)
SUFFIXES = {
    ".pb": f"is a TensorFlow graph. Convert it: {TF2ONNX} --saved-model FOLDER, or --graphdef FILE, --output model.onnx",
    ".mlmodel": "is a Core ML model. Export the network it was made from to ONNX",
    ".py": "is Python. Name what makes the module, from its folder: {module}:factory",
    ".onnxtxt": "is ONNX as text. Save it with onnx.save(onnx.parser.parse_model(text), 'model.onnx')",
    ".textproto": "is ONNX as text. Save it with onnx.save(onnx.load(path, format='textproto'), 'model.onnx')",
}
FOLDERS = {
    "saved_model.pb": f"is a TensorFlow model. Convert it: {TF2ONNX} --saved-model {{path}} --output model.onnx",
    "bundle.json": "is a bundle already. Explain with it: camrt explain {path} PHOTO",
    "Manifest.json": "is a Core ML package. Export the network it was made from to ONNX",
}


def describe_file(path: Path, data: bytes) -> str | None:
    """Return what a file that is no readable ONNX model is, as the end of a sentence; None where it may be a damaged one."""
    found = SUFFIXES.get(path.suffix.lower())
    for start, signature, meaning in SIGNATURES:
        if data.lstrip()[start : start + len(signature)] == signature:
            found = meaning
            break
    return found and found.format(path=path, module=path.stem)


def describe_folder(path: Path) -> str:
    """Return what a folder is, as the end of a sentence."""
    for name, meaning in FOLDERS.items():
        if (path / name).exists():
            return meaning.format(path=path)
    return "is a folder. Name the .onnx file in it"
