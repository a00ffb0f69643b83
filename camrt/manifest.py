"""bundle.json as data: read key by key, checked, and written.

It is hostile input: every key is checked, and no name in it can leave the folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camrt.errors import BundleError
from camrt.precision import Precision
from camrt.preprocess import Preprocess
from camrt.table import Table, is_shape

FORMAT = "camrt-bundle"
VERSION = 1
MANIFEST = "bundle.json"
WEIGHTS = "weights.bin"
GRAPHS = ("head", "tail", "gradient", "score")  # each NAME.onnx; gradient may be missing
FILES = frozenset({WEIGHTS, *(f"{graph}.onnx" for graph in GRAPHS)})  # what may lie beside bundle.json
REQUIRED = ("head.onnx", "tail.onnx", "score.onnx", WEIGHTS)
KINDS = ("logits", "probabilities", "sigmoid", "scores")
DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8, "int8": 1, "uint8": 1, "int32": 4, "int64": 8}


@dataclass(frozen=True)
class Tensor:
    """Name and shape of a graph's input or output; a negative first dimension is the batch."""

    name: str
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"{self.name} ({', '.join('N' if d < 0 else str(d) for d in self.shape)})"


@dataclass(frozen=True)
class Weight:
    """One tensor in weights.bin.

    Attributes
    ----------
    depth : int
        How many operators lie between the image and the first use of the tensor, so that sorting by depth goes from the
        first layer to the last.
    graphs : tuple of str
        The graphs that read it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int
    depth: int
    graphs: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Where the network was cut: the tensor, the operator that writes it, its PyTorch module, why it was chosen."""

    name: str
    operator: str
    reason: str
    module: str | None = None


@dataclass(frozen=True)
class Source:
    """What the bundle was made from and by what."""

    file: str
    sha256: str
    exporter: str
    producer: str = ""


@dataclass(frozen=True)
class Split:
    """How well tail(head(x)) and the score graph reproduce the source: the larger of both differences on each kind of input.

    Differences are of logits, or of what an activation makes of them where the source's logits cannot be reached.
    `skipped` names the inputs on which the source itself is not finite.
    """

    tolerance: float
    bound: str
    errors: Mapping[str, float]
    largest_logit: float
    skipped: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        return max(self.errors.values(), default=0.0)

    @property
    def verdict(self) -> str:
        """Say how well the source is reproduced and what was allowed, on one line."""
        found = f"within {self.error:.2g}" if self.error else "exactly"
        relative = self.bound.startswith("tolerance")
        allowed = f"{self.tolerance * max(1.0, self.largest_logit):.2g} is allowed, " if relative else ""
        return f"{found} ({allowed}{self.bound}; tolerance {self.tolerance:.3g}, largest logit {self.largest_logit:.3g})"


@dataclass(frozen=True)
class Manifest:
    """bundle.json as data.

    Attributes
    ----------
    image, features, output : Tensor
        (N, 3, H, W), (N, C, h, w) and (N, L).
    kind : {"logits", "probabilities", "sigmoid", "scores"}
        What the output is; p is its softmax, its sigmoid, or itself.
    activation : str or None
        The trailing Softmax, LogSoftmax or Sigmoid that was cut off.
    labels : tuple of str
        One per class, or empty.
    gradient_missing : str or None
        Why there is no gradient.onnx.
    gradient_error : float or None
        How far its gradient was from central differences of the tail, relative; None where they cannot tell.
    one_by_one : str or None
        Why images cannot share a batch, for a network that takes a scale from all of them; None where they can.
    precision : Precision or None
        What computing in float16 changed, where that was asked for; None where the bundle computes as its source does.
    """

    name: str
    source: Source
    layer: Layer
    image: Tensor
    features: Tensor
    output: Tensor
    kind: str
    activation: str | None
    labels: tuple[str, ...]
    preprocess: Preprocess
    split: Split
    gradient_missing: str | None
    gradient_error: float | None
    one_by_one: str | None
    weights: tuple[Weight, ...]
    files: Mapping[str, str]
    precision: Precision | None = None

    @property
    def classes(self) -> int:
        return self.output.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.image.shape[2], self.image.shape[3]

    @property
    def some_labels(self) -> str:
        """The names of the first eight classes: "tench, goldfish, …"; empty without labels."""
        return ", ".join(map(first_name, self.labels[:8])) + (", …" if len(self.labels) > 8 else "")

    def label(self, index: int) -> str:
        """Return the class's label, its index as text where the bundle has no labels."""
        return self.labels[index] if self.labels else str(index)

    def to_json(self) -> dict[str, Any]:
        """Return bundle.json's content."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "source": {**vars(self.source)},
            "layer": {**vars(self.layer)},
            "tensors": {
                role: {"name": tensor.name, "shape": ["N", *tensor.shape[1:]]}
                for role, tensor in (("image", self.image), ("features", self.features), ("output", self.output))
            },
            "output": {"kind": self.kind, "activation": self.activation},
            "labels": list(self.labels),
            "preprocess": self.preprocess.to_json(),
            "split": {**vars(self.split), "errors": dict(self.split.errors), "skipped": list(self.split.skipped)},
            "gradient": {"missing": self.gradient_missing, "error": self.gradient_error},
            "one_by_one": self.one_by_one,
            **({"precision": self.precision.to_json()} if self.precision else {}),  # absent, so that earlier versions read it
            "files": dict(self.files),
            "weights": [{**vars(w), "shape": list(w.shape), "graphs": list(w.graphs)} for w in self.weights],
        }

    @classmethod
    def from_json(cls, values: Any, where: str = MANIFEST) -> Manifest:
        """Read bundle.json's content.

        Raises
        ------
        BundleError
            It names the key, what it must be and what was found.
        """
        table = Table(values, where, BundleError)
        if table.values.get("format") != FORMAT:
            raise table.refuse("format", repr(FORMAT), table.values.get("format"))
        if table.integer("version") != VERSION:
            raise BundleError(
                f"{where}: this bundle has format version {values['version']}, this camrt reads version {VERSION}. "
                "Update camrt, or export the model again with this camrt."
            )
        table.only(
            "format", "version", "name", "source", "layer", "tensors", "output", "labels", "preprocess", "split",
            "gradient", "one_by_one", "precision", "files", "weights",
        )  # fmt: skip
        tensors, output, gradient = (table.table(key) for key in ("tensors", "output", "gradient"))
        tensors.only("image", "features", "output")
        output.only("kind", "activation")
        gradient.only("missing", "error")
        manifest = cls(
            name=table.text("name"),
            source=_read_source(table.table("source")),
            layer=_read_layer(table.table("layer")),
            image=_read_tensor(tensors.table("image"), 4),
            features=_read_tensor(tensors.table("features"), 4),
            output=_read_tensor(tensors.table("output"), 2),
            kind=output.choice("kind", KINDS),
            activation=_optional_text(output, "activation"),
            labels=table.strings("labels"),
            preprocess=Preprocess.from_json(table.table("preprocess")),
            split=_read_split(table.table("split")),
            gradient_missing=_optional_text(gradient, "missing"),
            gradient_error=gradient.number("error") if "error" in gradient else None,
            one_by_one=_optional_text(table, "one_by_one"),  # added after version 1 was first written
            weights=tuple(_read_weight(entry) for entry in table.tables("weights")),
            files=_read_files(table.table("files")),
            precision=Precision.from_json(table.table("precision")) if "precision" in table else None,
        )
        manifest._check(table)
        return manifest

    def _check(self, table: Table) -> None:
        """Refuse parts that do not fit together."""
        if self.labels and len(self.labels) != self.classes:
            raise table.refuse("labels", f"empty or {self.classes} strings, one per class", f"{len(self.labels)} labels")
        if self.preprocess.size != self.size:
            raise table.refuse("preprocess.size", f"{list(self.size)}, as tensors.image says", list(self.preprocess.size))
        if self.preprocess.channels != self.image.shape[1]:
            raise table.refuse("preprocess.mean", f"{self.image.shape[1]} numbers, one per channel", self.preprocess.mean)
        for name in REQUIRED:
            if name not in self.files:
                raise BundleError(f"{table.where}: 'files' lacks {name}. Export the model again.")
        if (self.gradient_missing is None) != ("gradient.onnx" in self.files):
            raise table.refuse("gradient.missing", "null with gradient.onnx, or the reason without", self.gradient_missing)


# --- reading ------------------------------------------------------------------------------------------------------------
def _optional_text(table: Table, key: str) -> str | None:
    return table.text(key) if key in table else None


def _read_source(table: Table) -> Source:
    table.only("file", "sha256", "exporter", "producer")
    return Source(table.text("file"), table.text("sha256"), table.text("exporter"), table.text("producer"))


def _read_layer(table: Table) -> Layer:
    table.only("name", "operator", "reason", "module")
    return Layer(table.text("name"), table.text("operator"), table.text("reason"), _optional_text(table, "module"))


def _read_tensor(table: Table, rank: int) -> Tensor:
    table.only("name", "shape")
    shape = table.values.get("shape")
    if not isinstance(shape, list) or len(shape) != rank or shape[0] != "N" or not is_shape(shape[1:], least=1):
        raise table.refuse("shape", f'"N" and {rank - 1} positive whole numbers', shape)
    return Tensor(table.text("name"), (-1, *shape[1:]))


def _read_split(table: Table) -> Split:
    table.only("tolerance", "bound", "errors", "largest_logit", "skipped")
    errors = table.table("errors")
    return Split(
        tolerance=table.number("tolerance"),
        bound=table.text("bound"),
        errors={name: errors.number(name) for name in errors.values},
        largest_logit=table.number("largest_logit"),
        skipped=table.strings("skipped"),
    )


def _read_weight(table: Table) -> Weight:
    table.only("name", "dtype", "shape", "offset", "length", "depth", "graphs")
    shape = table.shape("shape", least=0)
    dtype = table.choice("dtype", DTYPES)
    length = table.integer("length")
    if length != math.prod(shape) * DTYPES[dtype]:
        raise table.refuse("length", f"{math.prod(shape) * DTYPES[dtype]}, the size of its shape and dtype", length)
    graphs = table.strings("graphs")
    return Weight(table.text("name"), dtype, shape, table.integer("offset"), length, table.integer("depth"), graphs)


def _read_files(table: Table) -> dict[str, str]:
    files = {name: table.text(name) for name in table.values}
    for name, digest in files.items():
        if name not in FILES:
            raise BundleError(
                f"{table.where}: 'files' names {name!r}; a bundle holds only {', '.join(sorted(FILES))} beside {MANIFEST}."
            )
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise table.refuse(name, "a SHA-256 in hexadecimal", digest)
    return files


def first_name(label: str) -> str:
    """Return the first of a label's comma-separated names.

    >>> first_name("tench, Tinca tinca")
    'tench'
    """
    return label.split(",")[0].strip()


def match_label(labels: Sequence[str], text: str) -> list[int]:
    """Return the indices of the labels that are `text`, or have it among their comma-separated names.

    >>> match_label(["tench, Tinca tinca", "goldfish"], "tinca TINCA")
    [0]
    """
    wanted = text.strip().casefold()
    return [i for i, label in enumerate(labels) if wanted in (n.strip().casefold() for n in (label, *label.split(",")))]
