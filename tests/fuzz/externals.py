"""Weights beside the file, and entries that point elsewhere, or at more than there is."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from onnx import ModelProto, TensorProto

SECRET = b"what lies outside of the model's folder must not get into a bundle" * 4
LOCATIONS = (
    "weights.data", "weights.data", "weights.data", "missing.data", "../secret.data", "./weights.data", "a/../../secret.data", "link.data",
    "outside.data", "fifo.data", "folder", "/dev/zero", "/dev/stdin", "/etc/passwd", "{root}/secret.data", "", ".", "..", "\0", "x" * 5000,
    "model.onnx", "sparse.data", "linked/secret.data", "zero.data", "/proc/self/mem", "hard.data",
)  # fmt: skip
NUMBERS = (
    "0",
    "1",
    "4",
    "64",
    "4096",
    "-1",
    str(1 << 31),
    str(1 << 62),
    str(1 << 70),
    "x",
    "",
    "1e3",
    " 8",
    "0x10",
    "9" * 5000,
    "٣",
)


def furnish(folder: Path, data: bytes) -> None:
    """Put a file of weights into the model's folder, and beside it what external data might point to."""
    (folder.parent / "secret.data").write_bytes(SECRET)
    (folder / "weights.data").write_bytes(data)
    (folder / "folder").mkdir(exist_ok=True)
    os.mkfifo(folder / "fifo.data")
    os.link(folder.parent / "secret.data", folder / "hard.data")
    for name, to in (
        ("link.data", "weights.data"),
        ("outside.data", "../secret.data"),
        ("linked", ".."),
        ("zero.data", "/dev/zero"),
    ):
        (folder / name).symlink_to(to)
    with (folder / "sparse.data").open("wb") as file:
        file.truncate(1 << 40)


def move_out(model: ModelProto, random: Random, root: Path) -> bytes:
    """Make weights of a model external, with entries that are mostly wrong, and return the content of weights.data."""
    data = b""
    wild = random.random() < 0.85
    for tensor in model.graph.initializer:
        if not tensor.raw_data or random.random() < 0.3:
            continue
        entries = {"location": "weights.data", "offset": str(len(data)), "length": str(len(tensor.raw_data))}
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        if wild and random.random() < 0.6:
            _spoil(entries, random, root)
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    return data


def _spoil(entries: dict[str, str], random: Random, root: Path) -> None:
    for _ in range(random.choice((1, 1, 2))):
        what = random.choice(("location", "location", "offset", "length", "remove", "add"))
        if what == "location":
            entries["location"] = random.choice(LOCATIONS).replace("{root}", str(root))
        elif what == "remove" and entries:
            del entries[random.choice(list(entries))]
        elif what == "add":
            entries[random.choice(("checksum", "basepath", "__class__", "x"))] = random.choice(("..", "1", "x" * 9000))
        else:
            entries[what] = random.choice(NUMBERS)
