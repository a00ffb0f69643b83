from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

import camrt
from camrt.errors import ImageError
from camrt.photo import hold_photo, load_photo

RAMP = np.dstack([np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))] * 3) // np.array([1, 2, 4], np.uint8)


def encode(pixels: np.ndarray, ending: str = "png") -> bytes:
    bgr = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]] if pixels.ndim == 3 else pixels
    return cv2.imencode(f".{ending}", bgr)[1].tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_with_orientation(pixels: np.ndarray, orientation: int) -> bytes:
    data = encode(pixels, "jpg")
    tiff = b"II*\x00" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, orientation) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


# --- what is taken ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["png", "bmp", "tiff"])
def test_lossless_files_come_back_as_rgb(tmp_path, ending):
    path = tmp_path / f"ramp.{ending}"
    path.write_bytes(encode(RAMP, ending))
    photo = load_photo(path)
    assert np.array_equal(photo.pixels, RAMP)
    assert (photo.name, photo.source) == ("ramp", str(path))


@pytest.mark.parametrize("ending", ["jpg", "webp", "gif"])
def test_lossy_files_come_close(ending):
    assert np.abs(load_photo(encode(RAMP, ending)).pixels.astype(int) - RAMP).mean() < 24


def test_greyscale_becomes_three_equal_channels():
    pixels = load_photo(encode(RAMP[..., 0])).pixels
    assert pixels.shape == RAMP.shape
    assert np.array_equal(pixels[..., 0], RAMP[..., 0])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_sixteen_bits_become_eight():
    assert np.abs(load_photo(encode(RAMP.astype(np.uint16) * 257)).pixels.astype(int) - RAMP).max() <= 1
    assert np.array_equal(load_photo(RAMP.astype(np.uint16) * 257).pixels, RAMP)


@pytest.mark.parametrize("as_file", [True, False])
def test_transparency_is_laid_on_white(as_file):
    rgba = np.dstack([RAMP, np.zeros(RAMP.shape[:2], np.uint8)])
    rgba[:, 30:, 3] = 255
    pixels = load_photo(encode(rgba) if as_file else rgba).pixels
    assert (pixels[:, :30] == 255).all()
    assert np.array_equal(pixels[:, 30:], RAMP[:, 30:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied(orientation):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:15, :20] = 255  # a mark in the top left corner
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
            6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: lambda a: np.rot90(a, 3)}  # fmt: skip
    pixels = load_photo(jpeg_with_orientation(np.ascontiguousarray(undo[orientation](upright)), orientation)).pixels
    assert pixels.shape == upright.shape
    assert pixels[:12, :16].mean() > 240
    assert pixels[20:, 30:].mean() < 15


def test_a_cmyk_jpeg_becomes_rgb():
    # An Adobe CMYK JPEG of 8 x 8 pixels of one value: four components, each with its own constant block.
    picture = cv2.imencode(".jpg", np.full((8, 8), 200, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    frame = picture.index(b"\xff\xc0")
    scan = picture.index(b"\xff\xda")
    length = struct.unpack(">H", picture[scan + 2 : scan + 4])[0]
    tables = picture[2:frame] + picture[frame + 2 + struct.unpack(">H", picture[frame + 2 : frame + 4])[0] : scan]
    sof = struct.pack(">BHHB", 8, 8, 8, 4) + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5))
    bits = "".join(f"{b:08b}" for b in picture[scan + 2 + length : -2])
    adobe = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
    sos = bytes([4]) + b"".join(bytes([i, 0]) for i in range(1, 5)) + bytes([0, 63, 0])
    block = bits.rstrip("1")  # the padding that ends a scan
    data = block * 4
    data += "1" * (-len(data) % 8)
    body = bytes(int(data[i : i + 8], 2) for i in range(0, len(data), 8)).replace(b"\xff", b"\xff\x00")
    cmyk = (
        b"\xff\xd8\xff\xee" + struct.pack(">H", len(adobe) + 2) + adobe + tables
        + b"\xff\xc0" + struct.pack(">H", len(sof) + 2) + sof + b"\xff\xda" + struct.pack(">H", len(sos) + 2) + sos + body + b"\xff\xd9"
    )  # fmt: skip
    photo = load_photo(cmyk)
    assert photo.pixels.shape == (8, 8, 3)
    assert (photo.pixels[..., 0] == photo.pixels[..., 1]).all()


def test_an_animated_png_gives_its_first_frame():
    still = encode(RAMP)
    body = still.index(b"IDAT") - 4
    frame = struct.pack(">IIIIIHHBB", 0, RAMP.shape[1], RAMP.shape[0], 0, 0, 1, 10, 0, 0)
    end = still.index(b"IEND") - 4
    second = png_chunk(b"fcTL", struct.pack(">I", 1) + frame[4:])
    idat = still[still.index(b"IDAT") + 4 : end - 4]
    second += png_chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(len(zlib.decompress(idat)))))
    animated = (
        still[:body]
        + png_chunk(b"acTL", struct.pack(">II", 2, 0))
        + png_chunk(b"fcTL", frame)
        + still[body:end]
        + second
        + still[end:]
    )
    assert np.array_equal(load_photo(animated).pixels, RAMP)


def test_an_animated_gif_gives_its_first_frame():
    frames = cv2.Animation()
    frames.frames = [np.full((16, 16, 3), 250, np.uint8), np.zeros((16, 16, 3), np.uint8)]
    frames.durations = np.array([100, 100])
    _, data = cv2.imencodeanimation(".gif", frames)
    assert load_photo(data.tobytes()).pixels.mean() > 200


@pytest.mark.parametrize("array", [
    RAMP, RAMP[..., :1], RAMP[..., 0], RAMP / np.float32(255), RAMP.astype(np.float64) / 255, np.asfortranarray(RAMP), RAMP[::-1, ::-1],
])  # fmt: skip
def test_arrays_of_every_allowed_kind_are_taken(array):
    pixels = load_photo(array).pixels
    assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
    assert pixels.flags.c_contiguous


def test_a_photo_passes_through():
    photo = load_photo(RAMP)
    assert load_photo(photo) is photo


# --- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("array", "text"), [
    (np.zeros((4, 4, 2), np.uint8), "must be .*channels last"),
    (np.zeros((3, 8, 8), np.uint8), "channels last"),
    (np.zeros((1, 8, 8, 3), np.uint8), "channels last"),
    (np.zeros((0, 8, 3), np.uint8), "nothing to look at"),
    (np.zeros((8, 8, 3), np.int64), "int64"),
    (np.full((8, 8, 3), 7.0), r"\[0, 1\].*Divide by 255"),
    (np.full((8, 8, 3), np.nan), "NaN"),
    (np.array(5), "channels last"),
])  # fmt: skip
def test_arrays_of_another_kind_are_refused(array, text):
    with pytest.raises(ImageError, match=text):
        load_photo(array)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png: there is no such file"):
        load_photo(tmp_path / "nowhere.png")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match="is a folder"):
        load_photo(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM" + bytes(60), b"RIFF1234WEBPVP8 " + bytes(9)]
)
def test_empty_and_damaged_bytes_are_refused(data):
    with pytest.raises(ImageError):
        load_photo(data)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
def test_a_file_cut_in_half_is_refused(ending):
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), ending)
    with pytest.raises(ImageError, match="damaged|cut short|refused|header"):
        load_photo(data[: len(data) // 2])


def test_a_decompression_bomb_is_refused_before_decoding():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + png_chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="60000 x 60000 pixels are more than the limit"):
        load_photo(bomb)


def test_the_pixel_limit_holds_for_arrays_and_can_be_raised():
    with pytest.raises(ImageError, match="--max-pixels"):
        load_photo(RAMP, max_pixels=100)
    assert load_photo(RAMP, max_pixels=RAMP.size).pixels.shape == RAMP.shape


@pytest.mark.parametrize("source", [None, 3, object(), {"path": "x"}])
def test_other_objects_are_refused(source):
    with pytest.raises(ImageError, match="path, encoded bytes or an array"):
        camrt.load_photo(source)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_transparency_follows_the_exif_orientation(orientation):
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[..., 0] = np.arange(60, dtype=np.uint8) * 4
    rgba[..., 1] = np.arange(40, dtype=np.uint8)[:, None] * 6
    rgba[:10, :20, 3] = 255  # only the stored picture's top left corner is opaque
    tiff = b"II*\x00" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, orientation) + b"\0\0\0\0"
    png = encode(rgba)
    pixels = load_photo(png[:33] + png_chunk(b"eXIf", tiff) + png[33:]).pixels
    plain = load_photo(encode(rgba[..., :3])[:33] + png_chunk(b"eXIf", tiff) + encode(rgba[..., :3])[33:]).pixels
    opaque = (pixels != 255).any(axis=2)
    assert pixels.shape == plain.shape
    assert np.array_equal(pixels[opaque], plain[opaque])
    assert 190 <= opaque.sum() <= 200
    assert not (plain[opaque] > [80, 60, 0]).any()  # these are the corner's colours


class PilLike:
    """What a PIL image of a palette shows to NumPy, and what it becomes when converted."""

    mode = "P"
    __array_interface__ = np.zeros((4, 4), np.uint8).__array_interface__

    def convert(self, mode: str) -> np.ndarray:
        assert mode == "RGBA"
        return np.full((4, 4, 4), (9, 8, 7, 255), np.uint8)


def test_pil_images_of_other_modes_are_converted_not_taken_for_grey():
    assert load_photo(PilLike()).pixels[0, 0].tolist() == [9, 8, 7]


def test_big_endian_pixels_are_taken():
    assert np.array_equal(load_photo((RAMP.astype(np.uint16) * 257).astype(">u2")).pixels, RAMP)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_a_device_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ImageError, match="a pipe or a device"):
            load_photo(path)


# --- what cannot be read as an array, and what may change meanwhile -------------------------------------------------------
class Lazy:
    """An image that, like PIL's, is read only when its pixels are asked for."""

    mode = "RGB"

    def __init__(self, error: Exception):
        self.error = error

    def __array__(self, *_, **__):
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError("image file is truncated\n(3 bytes)"), RuntimeError("it wants its gradient"), MemoryError()]
)
def test_an_image_that_cannot_be_read_as_an_array_is_told_in_one_line(error):
    with pytest.raises(ImageError, match=r"^The image, a Lazy, cannot be read as an array: [^\n]+$"):
        load_photo(Lazy(error))


def test_an_array_too_large_is_refused_before_it_is_copied():
    with pytest.raises(ImageError, match="more than the limit"):
        load_photo(np.broadcast_to(np.uint8(0), (1 << 20, 1 << 20, 3)))


def test_an_entry_of_a_folder_of_bytes_is_a_path(tmp_path):
    (tmp_path / "ramp.png").write_bytes(encode(RAMP))
    with os.scandir(os.fsencode(tmp_path)) as entries:
        assert np.array_equal(load_photo(next(entries)).pixels, RAMP)


def test_a_path_and_bytes_are_held_as_they_are(tmp_path):
    for source in (tmp_path / "missing.png", "missing.png", b"no photo"):
        assert hold_photo(source) is source


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
def test_what_is_held_of_a_buffer_stays_when_the_buffer_changes(kind):
    buffer = kind(encode(RAMP))
    held = hold_photo(buffer)
    buffer[:] = bytes(len(buffer))
    assert np.array_equal(load_photo(held).pixels, RAMP)


@pytest.mark.parametrize(
    "view", [lambda a: a, lambda a: a[::-1, ::2], lambda a: a[..., ::-1], lambda a: a[..., 0], lambda a: a / 255]
)
def test_what_is_held_of_an_array_stays_when_the_array_changes(view):
    buffer = RAMP.copy()
    expected = load_photo(view(buffer)).pixels.copy()
    shown = view(buffer)
    held = hold_photo(shown)
    shown[:] = 0
    assert np.array_equal(load_photo(held).pixels, expected)
    assert held.pixels.flags.c_contiguous


def test_a_function_is_called_for_its_photo_when_the_turn_comes(tmp_path):
    calls = []

    def photo():
        calls.append(1)
        return encode(RAMP)

    held = hold_photo(photo)
    assert calls == []
    np.testing.assert_array_equal(load_photo(held).pixels, RAMP)
    assert calls == [1]


def test_what_a_function_raises_is_its_photos_alone(tiny):
    def missing():
        raise ImageError("the shop has no such photo")

    first, second = tiny.explain_many([missing, lambda: encode(RAMP)])
    assert str(first.error) == "the shop has no such photo"
    assert second.maps.shape == (1, 8, 8)
