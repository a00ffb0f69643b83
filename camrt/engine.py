"""Run a bundle's graphs: features, logits, and the masked images in one batched call.

Arrays stay on the device between the calls: the image goes up once, the features come down for the clustering, only the
maps go up again and only the scores come down.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
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
class Masked:
    """What the masked images gave.

    Attributes
    ----------
    logits : ndarray of shape (N, K, L)
    batch : int
        How many masked images shared a call.
    halved : bool
        The device's memory was full and the calls were made smaller.
    """

    logits: np.ndarray
    batch: int
    halved: bool


class Engine:
    """A bundle's sessions on one provider, shared by all threads; the score session opens on first use.

    Parameters
    ----------
    bundle : Bundle
    providers : sequence of str, optional
        As in `camrt.load`.
    max_masked_batch : int
        Most masked images in one call.
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
        self.max_masked_batch = max_masked_batch
        self.choice = choose(providers)
        self.threads = threads
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._black: np.ndarray | None = None
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
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

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

    def masked_logits(self, image: OrtValue, baseline: OrtValue, maps: np.ndarray, normalise: bool = True) -> Masked:
        """Return the logits of the images masked by every map.

        Parameters
        ----------
        image, baseline : OrtValue of shape (N, 3, H, W)
        maps : ndarray of shape (N, K, h, w), float32
            Upsampled and, with `normalise`, scaled to [0, 1] in the graph.

        Raises
        ------
        DeviceMemoryError
            Not even one masked image fits.
        """
        session = self._score_session()
        images, masks = maps.shape[:2]
        flag = self.put(np.array(normalise))
        parts: list[np.ndarray] = []
        done, halved = 0, False
        chunk = largest = max(1, min(masks, self.max_masked_batch // images))
        while done < masks:
            part = self.put(maps[:, done : done + chunk])
            try:
                feeds = {self.bundle.manifest.image.name: image, "baseline": baseline, "maps": part, "normalise": flag}
                parts.append(self._run(session, feeds).numpy())
            except DeviceMemoryError as error:
                if chunk == 1:
                    raise DeviceMemoryError(
                        f"{self.provider} has no memory for {images} masked image(s) of "
                        f"{self.bundle.manifest.size[0]} x {self.bundle.manifest.size[1]}. Explain fewer images at once, "
                        "or free device memory."
                    ) from error
                chunk, halved = chunk // 2, True
                self.max_masked_batch = min(self.max_masked_batch, max(1, chunk * images))
                largest = chunk
                continue
            done += chunk
        return Masked(np.concatenate(parts, axis=1), largest * images, halved)

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

    def _score_session(self) -> Session:
        with self._lock:
            if "score" not in self._sessions:
                self.bundle.check_unchanged("score")
                manifest = self.bundle.manifest
                baseline = Tensor("baseline", manifest.image.shape)
                maps = Tensor("maps", (-1, -1, *manifest.features.shape[2:]))
                flag = Tensor("normalise", ())
                output = Tensor(manifest.output.name, (-1, -1, manifest.classes))
                self._sessions["score"], _ = self._open("score", (manifest.image, baseline, maps, flag), output)
            return self._sessions["score"]

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
