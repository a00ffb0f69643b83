"""Run a bundle's graphs: features, logits, gradients, and the masked images in one batched call.

Arrays stay on the device between the calls: the image goes up once, the features come down for the clustering, only the
maps go up again and only the scores come down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camrt.bundle import Bundle
from camrt.errors import BundleError, DeviceMemoryError, ParameterError, one_line
from camrt.manifest import Tensor
from camrt.providers import CUDA_FAMILY, Choice, OrtValue, Session, choose, is_out_of_memory, open_session

MAX_THREADS = 1024
MAX_MASKED_BATCH = 64  # images; of 224 × 224 pixels they and ResNet-50's largest maps are about 500 MB


@dataclass(frozen=True)
class Batched:
    """What a batch too large for one call gave.

    Attributes
    ----------
    values : ndarray
        The calls' results, one after the other.
    batch : int
        How many images shared a call.
    halved : bool
        The device's memory was full and the calls were made smaller.
    """

    values: np.ndarray
    batch: int
    halved: bool


class Engine:
    """A bundle's sessions on one provider, shared by all threads; those for scores and gradients open on first use.

    Parameters
    ----------
    bundle : Bundle
    providers : sequence of str, optional
        As in `camrt.load`.
    max_masked_batch : int
        Most masked images, edited features or gradients in one call; 1 where the bundle says that images cannot share one.
    threads : int, default 0
        Threads of one operator on the CPU; 0 is one per core.
    """

    def __init__(
        self,
        bundle: Bundle,
        providers: Sequence[str] | str | None = None,
        *,
        max_masked_batch: int = MAX_MASKED_BATCH,
        threads: int = 0,
    ):
        check_count("max_masked_batch", max_masked_batch, 1, 1 << 20)
        check_count("threads", threads, 0, MAX_THREADS)
        self.bundle = bundle
        self.max_masked_batch = max_masked_batch if bundle.manifest.one_by_one is None else 1
        self.choice = choose(providers)
        self.threads = threads
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._black: np.ndarray | None = None
        self._linear: tuple[np.ndarray, np.ndarray] | None = None
        manifest = bundle.manifest
        self._head, self.provider = self._open("head", (manifest.image,), manifest.features)
        self.fell_back = self.provider != self.choice.names[0]
        if self.fell_back:  # reported once; the other sessions take what really runs
            self.choice = Choice((self.provider,), explicit=True)
        self._tail, _ = self._open("tail", (manifest.features,), manifest.output)
        self._device = "cuda" if self.provider in CUDA_FAMILY else "cpu"

    # --- runs -----------------------------------------------------------------------------------------------------------
    def put(self, array: np.ndarray) -> OrtValue:
        """Return the array on the device."""
        return OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), self._device, 0)

    def features(self, image: OrtValue) -> OrtValue:
        """Run the head: (N, 3, H, W) → (N, C, h, w), on the device."""
        return self._run(self._head, {self.bundle.manifest.image.name: image})

    def logits(self, features: OrtValue | np.ndarray) -> np.ndarray:
        """Run the tail: (N, C, h, w) → (N, L)."""
        value = self.put(features) if isinstance(features, np.ndarray) else features
        logits = np.asarray(self._run(self._tail, {self.bundle.manifest.features.name: value}).numpy())
        if logits.shape[1:] != (self.bundle.manifest.classes,):
            raise BundleError(f"tail.onnx gave {logits.shape[1:]} scores, bundle.json says {self.bundle.manifest.classes}.")
        return logits

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Run head and tail: (N, 3, H, W) → (N, L)."""
        return self.logits(self.features(self.put(x)))

    def black_logits(self) -> np.ndarray:
        """Return the logits (L,) of the black baseline, computed once."""
        with self._lock:
            if self._black is None:
                zeros = np.zeros((1, *self.bundle.manifest.image.shape[1:]), np.float32)
                self._black = self.forward(zeros)[0]
            return self._black

    def linear_tail(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (L, C) and bias (L,) that the tail has if it is global average pooling and a linear layer.

        The tail is asked about maps that are 1 in one channel; asked once.  Any tail gives an answer: that it is the
        right one shows on features, logits = W · mean A + b.
        """
        channels = self.bundle.manifest.features.shape[1]

        def ask(start: int, stop: int) -> np.ndarray:
            units = np.zeros((stop - start, *self.bundle.manifest.features.shape[1:]), np.float32)
            inside = np.arange(max(start, 1), stop)
            units[inside - start, inside - 1] = 1  # the first row stays 0
            return self.logits(units)

        with self._lock:
            if self._linear is None:
                logits = self._in_chunks(1, channels + 1, ask, axis=0).values
                self._linear = (logits[1:] - logits[0]).T, logits[0]
            return self._linear

    def masked_logits(
        self,
        image: OrtValue,
        baseline: OrtValue,
        maps: Callable[[int, int], np.ndarray],
        count: int,
        keep: Callable[[np.ndarray], np.ndarray],
        normalise: bool = True,
    ) -> Batched:
        """Return what `keep` makes of the logits (N, k, L) of the images masked by every map.

        Parameters
        ----------
        image, baseline : OrtValue of shape (N, 3, H, W)
        maps : callable
            (start, stop) → maps (N, stop − start, rows, columns), float32, of any size: upsampled and, with `normalise`,
            scaled to [0, 1] in the graph.
        count : int
            K, how many maps there are.
        keep : callable
            (N, k, L) → (N, k, …), so that no more than that is stored.

        Raises
        ------
        DeviceMemoryError
            Not even one masked image fits.
        """
        session = self._session("score")
        flag = self.put(np.array(normalise))

        def score(start: int, stop: int) -> np.ndarray:
            part = self.put(maps(start, stop))
            feeds = {self.bundle.manifest.image.name: image, "baseline": baseline, "maps": part, "normalise": flag}
            return keep(self._run(session, feeds).numpy())

        return self._in_chunks(image.shape()[0], count, score, axis=1)

    def edited_logits(
        self,
        features: np.ndarray,
        factors: Callable[[int, int], np.ndarray],
        count: int,
        keep: Callable[[np.ndarray], np.ndarray],
    ) -> Batched:
        """Return what `keep` makes of the logits (N, k, L) of the features times every factor; only the tail runs.

        Parameters
        ----------
        features : ndarray of shape (N, C, h, w)
        factors : callable
            (start, stop) → factors (N or 1, stop − start, C or 1, h or 1, w or 1), float32.
        count : int
            M, how many factors there are.
        keep : callable
            As in `masked_logits`.
        """
        images = len(features)

        def score(start: int, stop: int) -> np.ndarray:
            edited = features[:, None] * factors(start, stop)
            return keep(self.logits(edited.reshape(-1, *features.shape[1:])).reshape(images, stop - start, -1))

        return self._in_chunks(images, count, score, axis=1)

    def gradients(self, features: np.ndarray, cotangents: np.ndarray) -> Batched:
        """Return (∂logits/∂features)ᵀ cotangent (N, T, C, h, w) for T cotangents an image.

        Parameters
        ----------
        features : ndarray of shape (N, C, h, w), float32
        cotangents : ndarray of shape (N, T, L), float32
        """
        session = self._session("gradient")
        images, targets, classes = cotangents.shape
        rows = cotangents.reshape(-1, classes)
        name = self.bundle.manifest.features.name

        def derive(start: int, stop: int) -> np.ndarray:
            repeated = features[np.arange(start, stop) // targets]
            feeds = {name: self.put(repeated), "cotangent": self.put(rows[start:stop])}
            return np.asarray(self._run(session, feeds).numpy())

        found = self._in_chunks(1, images * targets, derive, axis=0)
        return Batched(found.values.reshape(images, targets, *features.shape[1:]), found.batch, found.halved)

    def _in_chunks(self, images: int, count: int, run: Callable[[int, int], np.ndarray], axis: int) -> Batched:
        """Run items 0…count of each image in as few calls as the limit allows, in smaller ones where memory is full."""
        parts: list[np.ndarray] = []
        done, halved = 0, False
        chunk = largest = max(1, min(count, self.max_masked_batch // images))
        while done < count:
            try:
                parts.append(run(done, min(done + chunk, count)))
            except DeviceMemoryError as error:
                if chunk == 1:
                    raise DeviceMemoryError(
                        f"{self.provider} has no memory for {images} image(s) of "
                        f"{self.bundle.manifest.size[0]} x {self.bundle.manifest.size[1]}. Explain fewer images at once, "
                        "or free device memory."
                    ) from error
                chunk, halved = chunk // 2, True
                self.max_masked_batch = min(self.max_masked_batch, max(1, chunk * images))
                largest = chunk
                continue
            done += chunk
        return Batched(np.concatenate(parts, axis), largest * images, halved)

    def open_all(self) -> None:
        """Open the sessions that would otherwise open on first use."""
        for graph in ("score", "gradient"):
            if f"{graph}.onnx" in self.bundle.manifest.files:
                self._session(graph)

    # --- sessions -------------------------------------------------------------------------------------------------------
    def _run(self, session: Session, feeds: dict[str, OrtValue]) -> OrtValue:
        """Run a session of one output, which stays on the device."""
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(session.get_outputs()[0].name, self._device)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            text = one_line(error)
            if is_out_of_memory(error):
                raise DeviceMemoryError(f"{self.provider} has no memory left: {text}") from error
            raise BundleError(f"A graph of {self.bundle.folder} failed on {self.provider}: {text}") from error
        return binding.get_outputs()[0]

    def _session(self, graph: str) -> Session:
        """Return the session of score.onnx or gradient.onnx, opened on first use."""
        with self._lock:
            if graph not in self._sessions:
                self.bundle.check_unchanged(graph)
                inputs, output = self._interface(graph)
                self._sessions[graph], _ = self._open(graph, inputs, output)
            return self._sessions[graph]

    def _interface(self, graph: str) -> tuple[tuple[Tensor, ...], Tensor]:
        manifest = self.bundle.manifest
        if graph == "gradient":
            cotangent = Tensor("cotangent", (-1, manifest.classes))
            return (manifest.features, cotangent), Tensor("gradients", manifest.features.shape)
        baseline = Tensor("baseline", manifest.image.shape)
        maps, flag = Tensor("maps", (-1, -1, -1, -1)), Tensor("normalise", ())
        return (manifest.image, baseline, maps, flag), Tensor(manifest.output.name, (-1, -1, manifest.classes))

    def _open(self, graph: str, inputs: Sequence[Tensor], output: Tensor) -> tuple[Session, str]:
        path = self.bundle.path(graph)
        session, provider = open_session(path, self.choice, self.threads)
        _check_interface(path.name, "inputs", session.get_inputs(), inputs)
        _check_interface(path.name, "outputs", session.get_outputs(), [output])
        return session, provider


def _check_interface(file: str, side: str, found: Sequence[Any], expected: Sequence[Tensor]) -> None:
    """Compare what a session has with what bundle.json says; a symbolic dimension is written as −1."""
    described = [Tensor(f.name, tuple(d if isinstance(d, int) else -1 for d in f.shape)) for f in found]
    if described != list(expected):
        raise BundleError(f"{file} has the {side} {described}, bundle.json says {list(expected)}. Export the model again.")
    for f in found:
        wanted = "tensor(float)" if f.shape else "tensor(bool)"  # the one scalar is the switch `normalise`
        if f.type != wanted:
            raise BundleError(f"{file}: {f.name} is {f.type}, a bundle has {wanted} there. Export the model again.")


def check_count(name: str, value: Any, least: int, most: int) -> None:
    """Refuse, as a ParameterError, what is no whole number within the limits."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= most:
        raise ParameterError(f"{name} must be a whole number from {least} to {most}, got {value!r}.")
