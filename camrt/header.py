"""Read an image's format, size and whether there is alpha, before anything is decoded.

A decompression bomb is a small file that unpacks to gigabytes; its header tells the size, so it is refused undecoded.
Formats: JPEG (ITU T.81), PNG (ISO 15948), WebP (RFC 9649), BMP, GIF (89a), TIFF (6.0).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from camrt.errors import ImageError


@dataclass(frozen=True)
class Header:
    """What the first bytes say: format, width and height in pixels, whether there is an alpha channel."""

    format: str
    width: int
    height: int
    alpha: bool = False


def _jpeg(data: bytes) -> Header:
    start_of_frame = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
    at = 2
    while True:
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker in start_of_frame:
            height, width = struct.unpack_from(">HH", data, at + 4)
            return Header("JPEG", width, height)
        if marker in (0xD9, 0xDA):
            raise ValueError("it ends before its size is told")
        standalone = marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8  # 0 is no marker: a 0xFF of the data
        at += 1 if standalone else 1 + struct.unpack_from(">H", data, at + 1)[0]


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise ValueError("it has no IHDR chunk")
    width, height, _, color_type = struct.unpack_from(">IIBB", data, 16)
    alpha, at, kind = color_type in (4, 6), 8, b""
    while kind != b"IEND":  # a decoder takes memory for a chunk before it sees that the file is shorter
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data):
            raise ValueError(f"its chunk {kind.decode('ascii', 'replace')} is cut short")
        alpha = alpha or kind == b"tRNS"
    return Header("PNG", width, height, alpha)


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8X":
        flags, w0, w1, w2, h0, h1, h2 = struct.unpack_from("<B3x6B", data, 20)  # three-byte numbers, each one less
        return Header("WebP", (w2 << 16 | w1 << 8 | w0) + 1, (h2 << 16 | h1 << 8 | h0) + 1, alpha=bool(flags & 0x10))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha=bool(bits >> 28 & 1))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF)
    raise ValueError("its first chunk is none of VP8, VP8L, VP8X")


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # BITMAPCOREHEADER
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", width, abs(height))


def _gif(data: bytes) -> Header:
    return Header("GIF", *struct.unpack_from("<HH", data, 6))


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    size = {}
    for i in range(count):
        tag, kind, _, value = struct.unpack_from(order + "HHII", data, directory + 2 + 12 * i)
        if tag in (256, 257) and tag not in size:  # ImageWidth, ImageLength; a SHORT stands in the first two bytes
            short = struct.unpack_from(order + "H", data, directory + 2 + 12 * i + 8)[0]
            size[tag] = short if kind == 3 else value
    return Header("TIFF", size[256], size[257])


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Header]], ...] = (
    (lambda data: data[:3] == b"\xff\xd8\xff", _jpeg),
    (lambda data: data[:8] == b"\x89PNG\r\n\x1a\n", _png),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    (lambda data: data[:2] == b"BM", _bmp),
    (lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _gif),
    (lambda data: data[:4] in (b"II*\x00", b"MM\x00*"), _tiff),
)


def read_header(data: bytes, name: str) -> Header:
    """Return the header of an encoded image.

    Raises
    ------
    ImageError
        The format is none of the six, or the header is damaged.
    """
    for matches, read in _READERS:
        if matches(data):
            try:
                return read(data)
            except (struct.error, IndexError, KeyError, ValueError) as error:
                kind = read.__name__.lstrip("_").upper()
                raise ImageError(f"{name}: damaged {kind} header ({error}). Save the image again.") from None
    raise ImageError(f"{name}: not a supported image; it starts with {data[:8]!r}. Supported: JPEG, PNG, WebP, BMP, GIF, TIFF.")
