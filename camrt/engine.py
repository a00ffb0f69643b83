"""Run a bundle's graphs: features, logits, gradients, and the masked images in batched calls.

Masked images are made on the device: the image goes up, the features come down for the clustering, the image goes up again
with the maps, and only logits come down.  One session, of score.onnx, serves the image itself and its masked copies, so that
what masks images alone keeps the weights in memory once; the others open on first use.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camrt.bundle import Bundle
from camrt.errors import BundleError, DeviceMemoryError, ParameterError
from camrt.image import upsampling_matrix
from camrt.providers import choose
from camrt.runtime import OrtValue
from camrt.session import RUNNING, SPINNING
from camrt.sessions import Sessions

MAX_THREADS = 1024
# Masked images in one call.  On the CPU more are no faster, and those of light networks fall out of its caches.
MAX_MASKED_BATCH = {"cpu": 5, "cuda": 64}
# Edited features in one call of the tail.  Those of wide linear layers read all of their weights in every call.
MAX_EDITED_BATCH, EDITED_BYTES = 64, 16 << 20

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
        Most masked images, edited features or gradients in one call, by default 64 with CUDA and TensorRT, else 5 (of edited
        features as many as have 16 MB, up to 64); 1 where the bundle says that images cannot share one.
    threads : int, default 0
        Threads of one operator on the CPU; 0 is one per core.
    spinning : {"running", "always", "never"}
        When the CPU's threads that wait for work spin instead of sleeping; as in `camrt.session.open_session`.
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
        choice = choose(providers, gpu_mem_limit=gpu_mem_limit, bundle=bundle.sha256)
        self.sessions = Sessions(bundle, choice, threads, spinning)
        self.provider, self.device = self.sessions.provider, self.sessions.device
        self._lock = threading.Lock()
        self._constants: dict[tuple[str, int | bool], OrtValue] = {}
        self._black: np.ndarray | None = None
        self._linear: tuple[np.ndarray, np.ndarray] | None = None
        self.max_masked_batch = max_masked_batch or MAX_MASKED_BATCH[self.device]
        one = 4 * math.prod(bundle.manifest.features.shape[1:])
        small = 0 if max_masked_batch else min(MAX_EDITED_BATCH, EDITED_BYTES // one)
        self.max_edited_batch = max(self.max_masked_batch, small)
        if bundle.manifest.one_by_one is not None:
            self.max_masked_batch = self.max_edited_batch = 1

    def put(self, array: np.ndarray) -> OrtValue:
        """Return the array on the device."""
        return OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), self.device, 0)

    def whole(self, image: OrtValue) -> tuple[OrtValue, np.ndarray]:
        """Run the whole model on images as they are: (N, 3, H, W) → features (N, C, h, w), on the device, and logits (N, L)."""
        maps = np.ones((image.shape()[0], 1, 1, 1), np.float32)  # over itself as the baseline, an image stays what it is
        feeds = self._masking(image, image, maps, None, normalise=False)
        manifest = self.bundle.manifest
        logits, features = self.sessions.run("score", feeds, manifest.output.name, manifest.features.name)
        return features, self._scores(logits, "score")[:, 0]

    def whole_in_chunks(self, x: np.ndarray, image: OrtValue) -> tuple[np.ndarray, OrtValue | None, Batched]:
        """Run the whole model on images as they are, in one call where the device has room.

        Parameters
        ----------
        x : ndarray of shape (N, 3, H, W), float32
        image : OrtValue
            The same on the device.

        Returns
        -------
        features : ndarray of shape (N, C, h, w), float32
        on_device : OrtValue or None
            The same on the device, where one call gave them all.
        logits : Batched
            Of (N, L).

        Raises
        ------
        DeviceMemoryError
            Not even one image fits.
        """
        parts: list[np.ndarray] = []
        on_device: OrtValue | None = None

        def run(start: int, stop: int) -> np.ndarray:
            nonlocal on_device
            all_of_them = stop - start == len(x)
            features, logits = self.whole(image if all_of_them else self.put(x[start:stop]))
            on_device = features if all_of_them else None
            parts.append(features.numpy())
            return logits

        logits = self._in_chunks(1, len(x), run, axis=0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts), on_device, logits

    def features(self, image: OrtValue) -> OrtValue:
        """Run the head alone: (N, 3, H, W) → (N, C, h, w), on the device."""
        manifest = self.bundle.manifest
        return self.sessions.run("head", {manifest.image.name: image}, manifest.features.name)[0]

    def logits(self, features: OrtValue | np.ndarray) -> np.ndarray:
        """Run the tail alone: (N, C, h, w) → (N, L)."""
        manifest = self.bundle.manifest
        value = self.put(features) if isinstance(features, np.ndarray) else features
        return self._scores(self.sessions.run("tail", {manifest.features.name: value}, manifest.output.name)[0], "tail")

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
                logits = self._in_chunks(1, channels + 1, ask, axis=0, most=self.max_edited_batch).values
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
            return keep(self._scores(self.sessions.run("score", feeds, self.bundle.manifest.output.name)[0], "score"))

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
        largest, halved = 0, False

        def score(start: int, stop: int) -> np.ndarray:
            nonlocal largest, halved
            rows = edited(start, stop).reshape(-1, *shape)
            found = self._in_chunks(1, len(rows), lambda i, j: self.logits(rows[i:j]), axis=0, most=self.max_edited_batch)
            largest, halved = max(largest, found.batch), halved or found.halved
            return keep(found.values.reshape(images, stop - start, -1))

        found = self._in_chunks(images, count, score, axis=1, most=self.max_edited_batch)
        return Batched(found.values, largest, halved or found.halved)

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
            return np.asarray(self.sessions.run("gradient", feeds, "gradients")[0].numpy())

        found = self._in_chunks(1, images * targets, derive, axis=0)
        return Batched(found.values.reshape(images, targets, *features.shape[1:]), found.batch, found.halved)

    def _in_chunks(
        self, images: int, count: int, run: Callable[[int, int], np.ndarray], axis: int, most: int | None = None
    ) -> Batched:
        """Run items 0…count of each image in as few calls as the limit allows, in smaller ones where memory is full."""
        parts: list[np.ndarray] = []
        done, largest, halved = 0, 0, False
        chunk = max(1, min(count, (most or self.max_masked_batch) // images))
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
                room = max(1, chunk * images)
                self.max_masked_batch = min(self.max_masked_batch, room)
                self.max_edited_batch = min(self.max_edited_batch, room)
                continue
            largest = max(largest, stop - done)
            done = stop
        return Batched(np.concatenate(parts, axis), largest * images, halved)


def check_count(name: str, value: Any, least: int, most: int) -> None:
    """Refuse, as a ParameterError, what is no whole number within the limits."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= most:
        raise ParameterError(f"{name} must be a whole number from {least} to {most}, got {value!r}.")
