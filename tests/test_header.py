from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import ImageError
from camrt.header import read_header

PICTURE = np.random.default_rng(0).integers(0, 256, (23, 37, 3), np.uint8)
ENDINGS = {"jpg": "JPEG", "png": "PNG", "webp": "WebP", "bmp": "BMP", "tiff": "TIFF", "gif": "GIF"}


def encode(ending: str, picture: np.ndarray = PICTURE, *options: int) -> bytes:
    return cv2.imencode(f".{ending}", picture, list(options))[1].tobytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_size_is_read_before_decoding(ending):
    header = read_header(encode(ending), "photo")
    assert (header.format, header.width, header.height) == (ENDINGS[ending], 37, 23)


def test_a_lossy_webp_and_a_progressive_jpeg_tell_their_size():
    lossy = encode("webp", PICTURE, cv2.IMWRITE_WEBP_QUALITY, 50)
    progressive = encode("jpg", PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert [read_header(data, "photo").width for data in (lossy, progressive)] == [37, 37]


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_transparency_is_told(ending):
    rgba = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 9, np.uint8)])
    assert read_header(encode(ending, rgba), "photo").alpha
    assert not read_header(encode(ending), "photo").alpha


def test_a_big_endian_tiff_is_read():
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in ((256, 640), (257, 480)))
    header = read_header(b"MM\x00*" + struct.pack(">IH", 8, 2) + entries, "photo")
    assert (header.width, header.height) == (640, 480)


def test_other_formats_are_refused_with_what_is_supported():
    with pytest.raises(ImageError, match=r"notes\.txt: not a supported image.*Supported: JPEG, PNG"):
        read_header(b"hello world", "notes.txt")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("length", [9, 14, 19])
def test_a_header_cut_short_is_refused(ending, length):
    try:
        header = read_header(encode(ending)[:length], "photo")
    except ImageError as error:
        assert "photo" in str(error)
    else:  # a GIF's size stands in its first ten bytes
        assert (header.format, header.width) == ("GIF", 37)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(ENDINGS)), st.binary(min_size=0, max_size=60), st.integers(0, 40))
def test_damaged_headers_give_a_size_or_an_image_error(ending, noise, start):
    data = bytearray(encode(ending))
    data[start : start + len(noise)] = noise
    try:
        assert read_header(bytes(data), "photo").format in ENDINGS.values()
    except ImageError as error:
        assert str(error).startswith("photo")


def test_a_png_chunk_that_claims_more_than_the_file_has_is_refused_unread():
    png = encode("png")
    at = png.index(b"IDAT") - 4
    with pytest.raises(ImageError, match="its chunk IDAT is cut short"):
        read_header(png[:at] + struct.pack(">I", 0xFFFFFFF0) + png[at + 4 :], "photo")


def test_a_jpeg_that_hides_its_size_behind_a_false_marker_is_read_as_the_decoder_reads_it():
    jpeg = encode("jpg")
    frame = jpeg.index(b"\xff\xc0")
    false_frame = b"\xff\x00" + struct.pack(">HBHHB", 8, 8, 1, 1, 1) + b"\0" * 3
    header = read_header(jpeg[:frame] + false_frame + jpeg[frame:], "photo")
    assert (header.width, header.height) == (37, 23)


def test_the_first_of_two_sizes_in_a_tiff_counts():
    tags = ((256, 30000), (257, 30000), (256, 20), (257, 20))
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    assert read_header(b"MM\x00*" + struct.pack(">IH", 8, 4) + entries, "photo").width == 30000
