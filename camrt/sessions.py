"""A bundle's sessions on one provider, shared by all threads: opened on first use, checked to be what camrt runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from camrt.bundle import Bundle
from camrt.errors import BundleError, DeviceMemoryError, one_line
from camrt.manifest import Tensor
from camrt.optimised import open_graph
from camrt.placement import Placements
from camrt.providers import CUDA_FAMILY, Choice
from camrt.runtime import OrtValue, Session
from camrt.session import is_out_of_memory


class Sessions:
    """The sessions of a bundle's graphs; that of score.onnx opens at once, the others on first use.

    Parameters
    ----------
    bundle : Bundle
    choice : Choice
    threads : int
        Threads of one operator on the CPU; 0 is one per core.
    spinning : {"running", "always", "never"}
        As in `camrt.session.open_session`.

    Attributes
    ----------
    choice : Choice
        What sessions take from now on: the provider that runs score.onnx, and those behind it.
    provider : str
        The one that runs score.onnx.
    device : {"cpu", "cuda"}
        Where values lie.
    placements : Placements
        Where the nodes of the open graphs run.
    fell_back : bool
        A session runs on another provider than the first of the choice.
    """

    def __init__(self, bundle: Bundle, choice: Choice, threads: int, spinning: str):
        self.bundle, self.choice = bundle, choice
        self.threads, self.spinning = threads, spinning
        self.placements = Placements()
        self.fell_back = False
        self._lock = threading.Lock()
        self._opened: dict[str, Session] = {}
        self._opened["score"], self.provider = self._start("score")
        self.choice = choice.settled(self.provider)  # the other sessions take what really runs
        self.device = "cuda" if self.provider in CUDA_FAMILY else "cpu"

    def run(self, graph: str, feeds: dict[str, OrtValue], *outputs: str) -> list[OrtValue]:
        """Run a graph; the outputs stay on the device.

        Raises
        ------
        DeviceMemoryError
            The device's memory is full.
        BundleError
            The bundle was replaced since it was loaded, or the graph fails for another reason.
        """
        session = self.open(graph)
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self.device)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            text = one_line(error)
            if is_out_of_memory(error):
                advice = "Explain fewer images at once, or free device memory."
                raise DeviceMemoryError(f"{self.provider} has no memory left: {text} {advice}") from error
            raise BundleError(f"A graph of {self.bundle.folder} failed on {self.provider}: {text}") from error
        return list(binding.get_outputs())

    def open(self, graph: str) -> Session:
        """Return the session of a graph, opened on first use."""
        if graph not in self._opened:
            with self._lock:
                if graph not in self._opened:
                    self.bundle.check_unchanged(graph)
                    self._opened[graph], _ = self._start(graph)
        return self._opened[graph]

    def open_all(self) -> None:
        """Open the sessions that methods use and that would otherwise open on first use."""
        for graph in ("tail", "gradient"):
            if f"{graph}.onnx" in self.bundle.manifest.files:
                self.open(graph)

    def _start(self, graph: str) -> tuple[Session, str]:
        session, provider = open_graph(self.bundle, graph, self.choice, self.threads, spinning=self.spinning)
        self.placements.add(graph, provider, session)
        self.fell_back |= provider != self.choice.names[0]
        inputs, outputs = self._interface(graph)
        name = self.bundle.path(graph).name
        _check_interface(name, "inputs", session.get_inputs(), inputs)
        _check_interface(name, "outputs", session.get_outputs(), outputs)
        return session, provider

    def _interface(self, graph: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return a graph's inputs and outputs: those that bundle.json describes, and what camrt adds to them."""
        manifest = self.bundle.manifest
        image, features, output = manifest.image, manifest.features, manifest.output
        if graph == "head":
            return (image,), (features,)
        if graph == "tail":
            return (features,), (output,)
        if graph == "gradient":
            cotangent = Tensor("cotangent", (-1, manifest.classes))
            return (features, cotangent), (Tensor("gradients", features.shape),)
        height, width = manifest.size
        masks = (
            Tensor("baseline", image.shape), Tensor("maps", (-1, -1, -1, -1)), Tensor("up_rows", (-1, height, -1)),
            Tensor("up_columns", (-1, -1, width)), Tensor("normalise", ()),
        )  # fmt: skip
        return (image, *masks), (Tensor(output.name, (-1, -1, manifest.classes)), features)


def _check_interface(file: str, side: str, found: Sequence[Any], expected: Sequence[Tensor]) -> None:
    """Compare what a session has with what `Sessions.run` is given; a symbolic dimension is written as −1."""
    described = [Tensor(f.name, tuple(d if isinstance(d, int) else -1 for d in f.shape)) for f in found]
    if described != list(expected):
        raise BundleError(
            f"{file} has the {side} {described}; by this bundle.json camrt runs it with {list(expected)}. "
            "Export the model again."
        )
    for f in found:
        wanted = "tensor(float)" if f.shape else "tensor(bool)"  # the one scalar is the switch `normalise`
        if f.type != wanted:
            raise BundleError(f"{file}: {f.name} is {f.type}, a bundle has {wanted} there. Export the model again.")
