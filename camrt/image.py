"""Between a photo and the network: preprocess it, upsample maps, bring a heatmap back onto the photo.

The one place where photos, maps and heatmaps are resized.  Bilinear interpolation has half-pixel centres everywhere:
`cv2.resize` on float32 equals the ONNX operator Resize (linear, half_pixel) to 1e-5 of the map's range, 2e-7 where sizes
divide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from camrt.errors import ImageError, ParameterError
from camrt.preprocess import LETTERBOX, MAX_SIDE, Preprocess

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_GROW = {"area": cv2.INTER_LINEAR, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_SHRINK = _GROW | {"area": cv2.INTER_AREA}

FLAT = 1e-6  # of its largest value: a map that varies by less is flat; upsampling a constant leaves such traces
BLUR_KERNEL = 51  # pixels, and
BLUR_SIGMA = 50.0  # pixels: the blurred baseline of Group-CAM (Zhang et al., arXiv 2103.13859)


@dataclass(frozen=True)
class Geometry:
    """Where the network's window lies on the photo.

    Attributes
    ----------
    photo : (int, int)
        Height and width of the photo.
    resized : (int, int)
        Height and width after resizing.
    top, left : int
        Where the network's window starts in the resized photo; negative where the photo is padded.
    network : (int, int)
        Height and width of the network's input.
    """

    photo: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int
    network: tuple[int, int]

    def seen(self) -> np.ndarray:
        """Return (H0, W0) bool: the photo's pixels whose centres the network saw."""
        rows = _inside(self.photo[0], self.resized[0], self.top, self.network[0])
        columns = _inside(self.photo[1], self.resized[1], self.left, self.network[1])
        return np.asarray(rows[:, None] & columns[None, :])


def _inside(n: int, resized: int, start: int, window: int) -> np.ndarray:
    """Return (n,) bool: the pixels whose centres, resized, lie in the window."""
    centres = (np.arange(n) + 0.5) * resized / n
    return np.asarray((centres >= start) & (centres < start + window))


def geometry(photo: tuple[int, int], preprocess: Preprocess) -> Geometry:
    """Return where the network's window lies on a photo of height and width `photo`."""
    height, width = preprocess.size
    if preprocess.resize == LETTERBOX:
        ratio = min(height / photo[0], width / photo[1])
        resized = (max(1, round(photo[0] * ratio)), max(1, round(photo[1] * ratio)))
    elif isinstance(preprocess.resize, int):
        longer = max(preprocess.resize, round(max(photo) * preprocess.resize / min(photo)))
        resized = (longer, preprocess.resize) if photo[0] >= photo[1] else (preprocess.resize, longer)
    else:
        assert isinstance(preprocess.resize, tuple)
        resized = (preprocess.resize[1], preprocess.resize[0])
    if max(resized) > MAX_SIDE:
        raise ImageError(
            f"A photo of {photo[1]} x {photo[0]} pixels would be resized to {resized[1]} x {resized[0]}; "
            f"the limit is {MAX_SIDE} a side. Crop the photo."
        )
    top, left = round((resized[0] - height) / 2), round((resized[1] - width) / 2)
    return Geometry(photo, resized, top, left, (height, width))


def preprocess_photo(pixels: np.ndarray, preprocess: Preprocess) -> tuple[np.ndarray, Geometry]:
    """Return the network's input for a photo, and where it lies on the photo.

    Parameters
    ----------
    pixels : ndarray of shape (H0, W0, 3), uint8 RGB

    Returns
    -------
    x : ndarray of shape (C, H, W), float32
        Channels in the network's order; padding is 0, the mean colour.
    where : Geometry
    """
    where = geometry((pixels.shape[0], pixels.shape[1]), preprocess)
    height, width = preprocess.size
    top, left = max(where.top, 0), max(where.left, 0)
    window = _resize(pixels, where, preprocess.interpolation)[top : top + height, left : left + width]
    planes = window.transpose(2, 0, 1)
    if preprocess.channels == 1:
        planes = np.tensordot(LUMA, planes, 1)[None]
    elif preprocess.color == "bgr":
        planes = planes[::-1]
    gain, offset = pixel_gain(preprocess)
    x = np.zeros((preprocess.channels, height, width), np.float32)
    inside = x[:, max(-where.top, 0) :, max(-where.left, 0) :][:, : window.shape[0], : window.shape[1]]
    np.multiply(planes, gain[:, None, None], out=inside)
    inside += offset[:, None, None]
    return x, where


def pixels_of(x: np.ndarray, preprocess: Preprocess) -> tuple[np.ndarray, Geometry]:
    """Return the photo that a network's input shows, (H, W, 3) uint8 RGB, and its geometry: the whole of it.

    Parameters
    ----------
    x : ndarray of shape (C, H, W), float32
        Values beyond black and white are clipped.
    """
    gain, offset = pixel_gain(preprocess)
    with np.errstate(invalid="ignore", over="ignore"):
        planes = np.nan_to_num((x - offset[:, None, None]) / gain[:, None, None])
    planes = planes[::-1] if preprocess.color == "bgr" else planes
    pixels = np.rint(np.clip(planes, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    size = (x.shape[1], x.shape[2])
    return np.ascontiguousarray(np.broadcast_to(pixels, (*size, 3))), Geometry(size, size, 0, 0, size)


def pixel_gain(preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """Return gain and offset (C,), float32, of every channel: x = pixel · gain + offset."""
    gain = preprocess.scale / np.array(preprocess.std)
    offset = -np.array(preprocess.mean) / preprocess.std
    return gain.astype(np.float32), offset.astype(np.float32)


def _resize(pixels: np.ndarray, where: Geometry, interpolation: str) -> np.ndarray:
    if where.resized == where.photo:
        return pixels
    shrinks = all(new <= old for new, old in zip(where.resized, where.photo, strict=True))
    flag = (_SHRINK if shrinks else _GROW)[interpolation]
    return np.asarray(cv2.resize(pixels, where.resized[::-1], interpolation=flag))


def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return maps (…, h, w) as (…, H, W) float32, bilinear with half-pixel centres."""
    planes = maps.reshape(-1, *maps.shape[-2:]).astype(np.float32, copy=False)
    out = np.empty((len(planes), *size), np.float32)
    for plane, target in zip(planes, out, strict=True):
        cv2.resize(plane, size[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
    return out.reshape(*maps.shape[:-2], *size)


@lru_cache(maxsize=64)
def upsampling_matrix(n: int, out: int, *, aligned: bool = False) -> np.ndarray:
    """Return the matrix (out, n), float32, that interpolates n values linearly at `out` places.

    Maps (h, w) upsampled to (H, W) are upsampling_matrix(h, H) @ map @ upsampling_matrix(w, W).T.

    Parameters
    ----------
    aligned : bool
        The first and last place are those of the first and last value; otherwise centres lie half a pixel inside.
    """
    position = np.linspace(0, n - 1, out) if aligned else np.clip((np.arange(out) + 0.5) * n / out - 0.5, 0, n - 1)
    matrix: np.ndarray = np.maximum(1 - np.abs(position[:, None] - np.arange(n)), 0).astype(np.float32)
    matrix.setflags(write=False)  # it is shared
    return matrix


def upsampled_range(maps: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and greatest value of every upsampled map without upsampling it.

    Within a cell of four neighbouring values the bilinear surface takes its extremes at the corners of the grid of
    samples that fall into the cell, so the first and last sample of each cell are enough: at most (2h + 2) × (2w + 2) of
    the H × W.

    Parameters
    ----------
    maps : ndarray of shape (…, h, w), float32
    size : (int, int)
        H and W.

    Returns
    -------
    low, high : ndarray of shape (…, 1, 1), float32
    """
    samples = maps
    for axis, length in ((-2, size[0]), (-1, size[1])):
        samples = _interpolate(samples, axis, *_cells(maps.shape[axis], length))
    return samples.min(axis=(-2, -1), keepdims=True), samples.max(axis=(-2, -1), keepdims=True)


@lru_cache(maxsize=64)
def extreme_samples(n: int, out: int) -> np.ndarray:
    """Return which of `out` samples are the first or last in one of the n + 1 cells, when n values become `out`."""
    cell = np.floor((np.arange(out) + 0.5) * n / out - 0.5).astype(int)
    edge = np.diff(cell, prepend=cell[0] - 1, append=cell[-1] + 1) != 0
    return np.flatnonzero(edge[:-1] | edge[1:])


def _cells(n: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (cell, fraction) of the extreme samples."""
    position = np.clip((extreme_samples(n, out) + 0.5) * n / out - 0.5, 0, n - 1)
    cell = np.floor(position).astype(int)
    return cell, (position - cell).astype(np.float32)


def _interpolate(maps: np.ndarray, axis: int, cell: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Return the linear interpolation along `axis` at `cell + fraction`."""
    after = np.take(maps, np.minimum(cell + 1, maps.shape[axis] - 1), axis)
    before = np.take(maps, cell, axis)
    return np.asarray(before + (after - before) * (fraction[:, None] if axis == -2 else fraction))


def normalise(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return N(up(maps)) before its upsampling: (M − low)/(high − low), zeros for a flat map.

    Upsampling is linear and keeps constants, so up(normalise(M)) = N(up(M)) to 5e-7.
    """
    return _stretched(maps, *upsampled_range(maps, size))


def scaled(maps: np.ndarray) -> np.ndarray:
    """Return N(M), for maps (…, h, w) as they are: zeros for a flat map."""
    return _stretched(maps, maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True))


def _stretched(maps: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    flat = is_flat(low, high)
    return np.where(flat, 0, (maps - low) / np.where(flat, 1, high - low)).astype(np.float32)


def is_flat(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell whether maps with these least and greatest values are flat but for the traces of rounding."""
    return np.asarray(high - low <= FLAT * np.maximum(np.abs(low), np.abs(high)))


def blur(x: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) blurred by the 51 × 51 Gaussian of σ 50, reflected at the border."""
    planes = [
        cv2.GaussianBlur(plane, (BLUR_KERNEL, BLUR_KERNEL), BLUR_SIGMA, borderType=cv2.BORDER_REFLECT_101)
        for plane in x.reshape(-1, *x.shape[-2:])
    ]
    return np.stack(planes).reshape(x.shape)


def restore(heatmap: np.ndarray, where: Geometry) -> np.ndarray:
    """Return a heatmap (H, W) of the network's window as (H0, W0) on the photo; 0 where the network did not look."""
    top, left = max(where.top, 0), max(where.left, 0)
    inside = heatmap[max(-where.top, 0) :, max(-where.left, 0) :][: where.resized[0], : where.resized[1]]
    bottom, right = where.resized[0] - top - inside.shape[0], where.resized[1] - left - inside.shape[1]
    whole = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE)
    on_photo = upsample(whole, where.photo)
    return np.where(where.seen(), on_photo, np.float32(0))


def on_network(region: np.ndarray, where: Geometry) -> np.ndarray:
    """Return a region of the photo (H0, W0) as (H, W) bool on the network's input; False on padding.

    Each of the network's pixels takes the photo's pixel that its centre falls on, the lower right one where it falls between.

    Parameters
    ----------
    region : ndarray of shape (H0, W0), bool
    where : Geometry
        As `preprocess_photo` gives it.

    Raises
    ------
    ParameterError
        The region is not as large as the photo, or not bool.
    """
    region = np.asarray(region)
    if region.dtype != np.bool_ or region.shape != where.photo:
        raise ParameterError(
            f"region must be bool of the photo's shape {where.photo}, got {region.dtype} of shape {region.shape}. "
            "Compare it with 0.5 if it is a mask of numbers, and give it in the photo's own size."
        )
    rows = _under(where.photo[0], where.resized[0], where.top, where.network[0])
    columns = _under(where.photo[1], where.resized[1], where.left, where.network[1])
    seen = (rows >= 0)[:, None] & (columns >= 0)
    return np.asarray(region[rows[:, None], columns] & seen)


def _under(n: int, resized: int, start: int, window: int) -> np.ndarray:
    """Return (window,) int: the photo's row or column under the centre of each of the network's; −1 on padding."""
    under = (2 * (start + np.arange(window)) + 1) * n // (2 * resized)
    return np.where((under >= 0) & (under < n), under, -1)
