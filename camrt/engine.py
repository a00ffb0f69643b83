"""Run a bundle's graphs: features, logits, gradients, and the masked images in batched calls.

Masked images are made on the device: the image goes up, the features come down for the clustering, the image goes up again
with the maps, and only logits come down.  One session, of score.onnx, serves the image itself and its masked copies, so that
Cluster-CAM keeps the weights in memory once; the others open on first use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camrt.bundle import Bundle
from camrt.errors import BundleError, DeviceMemoryError, ParameterError, one_line
from camrt.image import upsampling_matrix
from camrt.manifest import Tensor
from camrt.optimised import open_graph
from camrt.placement import Placements
from camrt.providers import CUDA_FAMILY, RUNNING, SPINNING, OrtValue, Session, choose, is_out_of_memory

MAX_THREADS = 1024
# Masked images in one call.  On the CPU more are no faster, and those of light networks fall out of its caches.
MAX_MASKED_BATCH = {"cpu": 5, "cuda": 64}

Upsampling = tuple[np.ndarray, np.ndarray]  # matrices (k or 1, H, rows) and (k or 1, columns, W): masks = left @ maps @ right


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
    """A bundle's sessions on one provider, shared by all threads; all but that of score.onnx open on first use.

    Parameters
    ----------
    bundle : Bundle
    providers : sequence of str, optional
        As in `camrt.load`.
    max_masked_batch : int, optional
        Most masked images, edited features or gradients in one call, by default 64 with CUDA and TensorRT, else 5; 1 where the
        bundle says that images cannot share one.
    threads : int, default 0
        Threads of one operator on the CPU; 0 is one per core.
    spinning : {"running", "always", "never"}
        When the CPU's threads that wait for work spin instead of sleeping; as in `camrt.providers.open_session`.
    gpu_mem_limit : int, optional
        As in `camrt.load`.
    """

    def __init__(
        self,
        bundle: Bundle,
        providers: Sequence[str] | str | None = None,
        *,
        max_masked_batch: int | None = None,
        threads: int = 0,
        spinning: str = RUNNING,
        gpu_mem_limit: int | None = None,
    ):
        if max_masked_batch is not None:
            check_count("max_masked_batch", max_masked_batch, 1, 1 << 20)
        check_count("threads", threads, 0, MAX_THREADS)
        if spinning not in SPINNING:
            raise ParameterError(f"spinning must be one of {', '.join(SPINNING)}, got {spinning!r}.")
        self.bundle = bundle
        self.choice = choose(providers, gpu_mem_limit=gpu_mem_limit, bundle=bundle.sha256)
        self.threads, self.spinning = threads, spinning
        self._lock = threading.RLock()  # what is computed once may open a session
        self._sessions: dict[str, Session] = {}
        self._constants: dict[tuple[str, int | bool], OrtValue] = {}
        self._black: np.ndarray | None = None
        self._linear: tuple[np.ndarray, np.ndarray] | None = None
        self.placements = Placements()
        self.fell_back = False
        self._sessions["score"], self.provider = self._open("score")
        self.choice = self.choice.settled(self.provider)  # the other sessions take what really runs
        self.device = "cuda" if self.provider in CUDA_FAMILY else "cpu"
        self.max_masked_batch = max_masked_batch or MAX_MASKED_BATCH[self.device]
        if bundle.manifest.one_by_one is not None:
            self.max_masked_batch = 1

    # --- runs -----------------------------------------------------------------------------------------------------------
    def put(self, array: np.ndarray) -> OrtValue:
        """Return the array on the device."""
        return OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), self.device, 0)

    def whole(self, image: OrtValue) -> tuple[OrtValue, np.ndarray]:
        """Run the whole model on images as they are: (N, 3, H, W) → features (N, C, h, w), on the device, and logits (N, L)."""
        maps = np.ones((image.shape()[0], 1, 1, 1), np.float32)  # over itself as the baseline, an image stays what it is
        feeds = self._masking(image, image, maps, None, normalise=False)
        logits, features = self._run("score", feeds, self.bundle.manifest.output.name, self.bundle.manifest.features.name)
        return features, self._scores(logits, "score")[:, 0]

    def features(self, image: OrtValue) -> OrtValue:
        """Run the head alone: (N, 3, H, W) → (N, C, h, w), on the device."""
        manifest = self.bundle.manifest
        return self._run("head", {manifest.image.name: image}, manifest.features.name)[0]

    def logits(self, features: OrtValue | np.ndarray) -> np.ndarray:
        """Run the tail alone: (N, C, h, w) → (N, L)."""
        manifest = self.bundle.manifest
        value = self.put(features) if isinstance(features, np.ndarray) else features
        return self._scores(self._run("tail", {manifest.features.name: value}, manifest.output.name)[0], "tail")

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Run head and tail, one after the other: (N, 3, H, W) → (N, L)."""
        return self.logits(self.features(self.put(x)))

    def black_logits(self) -> np.ndarray:
        """Return the logits (L,) of the black baseline, computed once."""
        with self._lock:
            if self._black is None:
                self._black = self.whole(self.black(1))[1][0]
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
        upsampling: Callable[[int, int], Upsampling] | None = None,
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
        upsampling : callable, optional
            (start, stop) → matrices, one pair for each of those maps or one for all.  By default bilinear with half-pixel
            centres.

        Raises
        ------
        DeviceMemoryError
            Not even one masked image fits.
        """

        def score(start: int, stop: int) -> np.ndarray:
            part = maps(start, stop)
            feeds = self._masking(image, baseline, part, upsampling and upsampling(start, stop), normalise)
            return keep(self._scores(self._run("score", feeds, self.bundle.manifest.output.name)[0], "score"))

        return self._in_chunks(image.shape()[0], count, score, axis=1)

    def _masking(
        self, image: OrtValue, baseline: OrtValue, maps: np.ndarray, upsampling: Upsampling | None, normalise: bool
    ) -> dict[str, OrtValue]:
        """Return what score.onnx reads; without matrices, those of bilinear upsampling."""
        cells = maps.shape[-2:]
        if upsampling is None:
            height, width = self.bundle.manifest.size
            rows = self._kept(("rows", cells[0]), lambda: upsampling_matrix(cells[0], height)[None])
            columns = self._kept(("columns", cells[1]), lambda: upsampling_matrix(cells[1], width).T[None])
        else:
            rows, columns = map(self.put, upsampling)
        flag = self._kept(("normalise", normalise), lambda: np.array(normalise))
        masks = {"maps": self.put(maps), "up_rows": rows, "up_columns": columns, "normalise": flag}
        return {self.bundle.manifest.image.name: image, "baseline": baseline, **masks}

    def black(self, images: int) -> OrtValue:
        """Return the black baseline (N, 3, H, W): zeros, on the device."""
        return self._kept(("black", images), lambda: np.zeros((images, *self.bundle.manifest.image.shape[1:]), np.float32))

    def _kept(self, key: tuple[str, int | bool], make: Callable[[], np.ndarray]) -> OrtValue:
        """Return an array that every explanation needs, brought onto the device once."""
        if key not in self._constants:
            self._constants[key] = self.put(make())
        return self._constants[key]

    def _scores(self, logits: OrtValue, graph: str) -> np.ndarray:
        """Return logits (…, L), which must be as many as bundle.json says."""
        found = np.asarray(logits.numpy())
        if found.shape[-1] != self.bundle.manifest.classes:
            raise BundleError(f"{graph}.onnx gave {found.shape} scores, bundle.json says {self.bundle.manifest.classes}.")
        return found

    def edited_logits(
        self,
        images: int,
        edited: Callable[[int, int], np.ndarray],
        count: int,
        keep: Callable[[np.ndarray], np.ndarray],
    ) -> Batched:
        """Return what `keep` makes of the logits (N, k, L) of edited features; only the tail runs.

        Parameters
        ----------
        images : int
            N.
        edited : callable
            (start, stop) → features (N, stop − start, C, h, w), float32.
        count : int
            M, how many edits there are.
        keep : callable
            As in `masked_logits`.
        """
        shape = self.bundle.manifest.features.shape[1:]

        def score(start: int, stop: int) -> np.ndarray:
            return keep(self.logits(edited(start, stop).reshape(-1, *shape)).reshape(images, stop - start, -1))

        return self._in_chunks(images, count, score, axis=1)

    def gradients(self, features: np.ndarray, cotangents: np.ndarray, on_device: OrtValue | None = None) -> Batched:
        """Return (∂logits/∂features)ᵀ cotangent (N, T, C, h, w) for T cotangents an image.

        Parameters
        ----------
        features : ndarray of shape (N, C, h, w), float32
        cotangents : ndarray of shape (N, T, L), float32
        on_device : OrtValue, optional
            The same features on the device, which need not go up again where one call takes them as they are.
        """
        images, targets, classes = cotangents.shape
        rows = cotangents.reshape(-1, classes)
        name = self.bundle.manifest.features.name

        def derive(start: int, stop: int) -> np.ndarray:
            as_they_are = on_device is not None and targets == 1 and stop - start == images
            value = on_device if as_they_are else self.put(features[np.arange(start, stop) // targets])
            feeds = {name: value, "cotangent": self.put(rows[start:stop])}
            return np.asarray(self._run("gradient", feeds, "gradients")[0].numpy())

        found = self._in_chunks(1, images * targets, derive, axis=0)
        return Batched(found.values.reshape(images, targets, *features.shape[1:]), found.batch, found.halved)

    def _in_chunks(self, images: int, count: int, run: Callable[[int, int], np.ndarray], axis: int) -> Batched:
        """Run items 0…count of each image in as few calls as the limit allows, in smaller ones where memory is full."""
        parts: list[np.ndarray] = []
        done, largest, halved = 0, 0, False
        chunk = max(1, min(count, self.max_masked_batch // images))
        while done < count:
            calls = -(-(count - done) // chunk)  # of equal size, so that memory is reused
            stop = done + -(-(count - done) // calls)
            try:
                parts.append(run(done, stop))
            except DeviceMemoryError as error:
                if chunk == 1:
                    raise DeviceMemoryError(
                        f"{self.provider} has no memory for {images} image(s) of "
                        f"{self.bundle.manifest.size[0]} x {self.bundle.manifest.size[1]}. Explain fewer images at once, "
                        "or free device memory."
                    ) from error
                chunk, halved = chunk // 2, True
                self.max_masked_batch = min(self.max_masked_batch, max(1, chunk * images))
                continue
            largest = max(largest, stop - done)
            done = stop
        return Batched(np.concatenate(parts, axis), largest * images, halved)

    def open_all(self) -> None:
        """Open the sessions that methods use and that would otherwise open on first use."""
        for graph in ("tail", "gradient"):
            if f"{graph}.onnx" in self.bundle.manifest.files:
                self._session(graph)

    # --- sessions -------------------------------------------------------------------------------------------------------
    def _run(self, graph: str, feeds: dict[str, OrtValue], *outputs: str) -> list[OrtValue]:
        """Run a graph; the outputs stay on the device."""
        binding = self._session(graph).io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self.device)
        try:
            self._session(graph).run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            text = one_line(error)
            if is_out_of_memory(error):
                advice = "Explain fewer images at once, or free device memory."
                raise DeviceMemoryError(f"{self.provider} has no memory left: {text} {advice}") from error
            raise BundleError(f"A graph of {self.bundle.folder} failed on {self.provider}: {text}") from error
        return list(binding.get_outputs())

    def _session(self, graph: str) -> Session:
        """Return the session of a graph, opened on first use."""
        if graph not in self._sessions:
            with self._lock:
                if graph not in self._sessions:
                    self.bundle.check_unchanged(graph)
                    self._sessions[graph], _ = self._open(graph)
        return self._sessions[graph]

    def _open(self, graph: str) -> tuple[Session, str]:
        session, provider = open_graph(self.bundle, graph, self.choice, self.threads, spinning=self.spinning)
        self.placements.add(graph, provider, session)
        self.fell_back |= provider != self.choice.names[0]
        inputs, outputs = self._interface(graph)
        name = self.bundle.path(graph).name
        _check_interface(name, "inputs", session.get_inputs(), inputs)
        _check_interface(name, "outputs", session.get_outputs(), outputs)
        return session, provider

    def _interface(self, graph: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return a graph's inputs and outputs."""
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
