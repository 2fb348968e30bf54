"""Pictures of every kind come out as a person sees them; what is none is refused by name."""

import contextlib
import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from mutations import fuzzed, mutated
from PIL import Image

from keras_shared.errors import KerasSharedError
from keras_shared.files import pictures
from keras_shared.files.pictures import (
    PictureError,
    plain_picture,
    png_bytes,
    read_picture,
    why_no_picture,
)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content)
    )  # fmt: skip


def png(width, height, depth, kind, rows, *more):
    """A PNG written by hand, for kinds that Pillow does not write."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [chunk(b"IHDR", head), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


GREY = np.arange(0, 240, 10, "uint8").reshape(4, 6)
COLOURS = np.stack([GREY, GREY[::-1], 255 - GREY], -1)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP"])
def test_formats_without_loss(kind, tmp_path):
    (tmp_path / "grey").write_bytes(
        encoded(Image.fromarray(GREY), kind, **{"lossless": True} if kind == "WEBP" else {})
    )
    pixels = read_picture(tmp_path / "grey")
    assert pixels.dtype == "uint8" and pixels.shape[:2] == (4, 6)
    np.testing.assert_array_equal(pixels.max(-1), GREY)
    np.testing.assert_array_equal(pixels.min(-1), GREY)


def test_grey_and_colour():
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(GREY)))[..., 0], GREY)
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(COLOURS))), COLOURS)
    jpeg = read_picture(encoded(Image.fromarray(GREY), "JPEG", quality=100))
    assert jpeg.shape == (4, 6, 1) and np.abs(jpeg[..., 0].astype(int) - GREY).max() <= 2


@pytest.mark.parametrize("note", range(1, 9))
def test_exif_turns_a_photo_upright(note):
    """Each of the eight notes, undone by hand in NumPy."""
    lying = {
        1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1],
        5: GREY.T, 6: np.rot90(GREY), 7: GREY[::-1, ::-1].T, 8: np.rot90(GREY, -1),
    }[note]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = note
    content = encoded(Image.fromarray(np.ascontiguousarray(lying)), exif=exif)
    np.testing.assert_array_equal(read_picture(content)[..., 0], GREY)


def test_transparency_is_white_paper():
    alpha = np.zeros((4, 6), "uint8")
    alpha[:, 3:] = 255
    half = np.full((4, 6), 128, "uint8")
    ink = np.zeros((4, 6, 3), "uint8")
    on_white = np.where(alpha[..., None], ink, 255)
    with_alpha = Image.fromarray(np.dstack([ink, alpha]))
    np.testing.assert_array_equal(read_picture(encoded(with_alpha)), on_white)
    grey = read_picture(encoded(Image.fromarray(np.dstack([ink[..., 0], alpha]))))
    np.testing.assert_array_equal(grey, on_white[..., :1])
    np.testing.assert_array_equal(
        read_picture(encoded(Image.fromarray(np.dstack([ink[..., 0], half]))))[..., 0], 127
    )
    palette = Image.fromarray((alpha > 0).astype("uint8"))
    palette = palette.convert("L")
    palette.putpalette([9, 9, 9, 0, 0, 0])
    for kind in ("PNG", "GIF"):  # number 0 is transparent
        np.testing.assert_array_equal(
            read_picture(encoded(palette, kind, transparency=0)), on_white
        )
    shares = chunk(b"PLTE", bytes([0] * 6)) + chunk(b"tRNS", bytes([128, 255]))
    half_clear = read_picture(png(2, 1, 8, 3, [bytes([0, 1])], shares))
    np.testing.assert_array_equal(half_clear[0, :, 0], [127, 0])
    lossless = read_picture(encoded(with_alpha, "WEBP", lossless=True))
    np.testing.assert_array_equal(lossless, on_white)


@pytest.mark.parametrize(
    ("depth", "kind", "clear", "row", "seen"),
    [
        (1, 0, [0], bytes([0b01000000]), [255, 255]),
        (1, 0, [1], bytes([0b01000000]), [0, 255]),
        (2, 0, [1], bytes([0b00011011]), [0, 255, 170, 255]),
        (2, 0, [2], bytes([0b00011011]), [0, 85, 255, 255]),
        (2, 0, [0xFF00], bytes([0b00011011]), [255, 85, 170, 255]),  # its low bits count
        (4, 0, [0], bytes([0x01, 0x9F]), [255, 17, 153, 255]),
        (4, 0, [9], bytes([0x01, 0x9F]), [0, 17, 255, 255]),
        (8, 0, [7], bytes([7, 9]), [255, 9]),
        (16, 0, [7], struct.pack(">2H", 7, 65535), [255, 255]),
        (16, 0, [0x0900], struct.pack(">3H", 0x0700, 0x0900, 0x0901), [7, 255, 9]),
        (8, 2, [7, 7, 7], bytes([7, 7, 7, 1, 2, 3]), [[255, 255, 255], [1, 2, 3]]),
        (16, 2, [0x0102, 0xFF00, 0], struct.pack(">6H", 0x0102, 0xFF00, 0, 0x0202, 0xFF00, 0),
         [[255, 255, 255], [2, 255, 0]]),
        (16, 2, [7, 8, 9], struct.pack(">6H", 7, 8, 9, 0x0708, 0x0809, 0x090A),
         [[255, 255, 255], [7, 8, 9]]),
    ],
)  # fmt: skip
def test_a_colour_that_a_png_calls_transparent(depth, kind, clear, row, seen):
    more = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    content = png(len(seen), 1, depth, kind, [row], more)
    for pixels in (read_picture(content), read_picture(plain_picture(content))):
        np.testing.assert_array_equal(pixels[0].squeeze(-1) if kind == 0 else pixels[0], seen)


@pytest.mark.parametrize(("depth", "row"), [(1, 0b01000000), (2, 0b00010000), (4, 0x01)])
def test_a_colour_of_a_palette_that_a_png_calls_transparent(depth, row):
    more = chunk(b"PLTE", bytes([9] * 6)), chunk(b"tRNS", bytes([255, 0]))
    pixels = read_picture(png(2, 1, depth, 3, [bytes([row])], *more))
    np.testing.assert_array_equal(pixels[0, :, 0], [9, 255])


def test_few_and_many_bits():
    bits = np.array([[0, 255], [255, 0]], "uint8")
    np.testing.assert_array_equal(
        read_picture(encoded(Image.fromarray(bits).convert("1")))[..., 0], bits
    )
    deep = np.array([[0, 257, 32896], [65535, 300, 1000]], "uint16")
    np.testing.assert_array_equal(
        read_picture(encoded(Image.fromarray(deep)))[..., 0], [[0, 1, 128], [255, 1, 4]]
    )
    rows = [np.array([0, 0x8000, 0xFFFF], ">u2").tobytes()]
    np.testing.assert_array_equal(read_picture(png(1, 1, 16, 2, rows))[0, 0], [0, 128, 255])


def test_palettes_and_inks():
    quantised = Image.fromarray(COLOURS).quantize(256)
    np.testing.assert_array_equal(
        read_picture(encoded(quantised)), np.asarray(quantised.convert("RGB"))
    )
    red = Image.new("CMYK", (4, 6), (0, 255, 255, 0))
    pixels = read_picture(encoded(red, "JPEG", quality=100)).astype(int)
    assert np.abs(pixels - [255, 0, 0]).max() <= 3


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((4, 6), value, "uint8")) for value in (9, 200)]
    for kind in ("GIF", "WEBP", "PNG"):
        more = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **more)
        assert (read_picture(content) == 9).all()


ALLOWED = "expected PNG, JPEG, GIF, BMP or WebP"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", f"is empty: {ALLOWED}."),
        (b"no picture", f"{ALLOWED}. It is text."),
        (b"%PDF-1.7\n%\xe2", f"{ALLOWED}. It is a PDF document."),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', f"{ALLOWED}. It is an SVG drawing."),
        (b"<svg/>", f"{ALLOWED}. It is an SVG drawing."),
        (b"<!DOCTYPE html><p>404", f"{ALLOWED}. It is a web page."),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", f"{ALLOWED}. It is a HEIC photo."),
        (encoded(Image.fromarray(GREY), "TIFF"), f"{ALLOWED}. It is a TIFF image."),
        (b"PK\x03\x04\xff\xff", f"{ALLOWED}. It is a ZIP archive."),
        (b"\xff\xfe\0\x01\x02", f"is not a picture that can be read: {ALLOWED}."),
    ],
)
def test_what_is_no_picture_is_named(content, said, tmp_path):
    (tmp_path / "given.png").write_bytes(content)
    with pytest.raises(PictureError) as caught:
        read_picture(tmp_path / "given.png")
    for text in (str(caught.value), why_no_picture(tmp_path / "given.png")):
        assert text.startswith(f"{tmp_path / 'given.png'} ")
        assert text.endswith(said)


def test_what_is_no_file(tmp_path):
    with pytest.raises(PictureError, match=r"^There is no file .*nowhere\.png\.$"):
        read_picture(tmp_path / "nowhere.png")
    with pytest.raises(PictureError, match=f"is a folder: {ALLOWED}"):
        read_picture(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_cut_files_are_seen_before_they_are_needed(tmp_path, kind, mode):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype="uint8")
    content = encoded(Image.fromarray(noise).convert(mode), kind)
    file = tmp_path / "given"
    file.write_bytes(content)
    assert not why_no_picture(file)
    if kind == "JPEG":  # as cameras write more behind it
        file.write_bytes(content + bytes(200))
        assert not why_no_picture(file)
    for part in (0.3, 0.8, 0.95):
        file.write_bytes(content[: int(part * len(content))])
        assert re.search("is cut off or damaged|is not a picture", why_no_picture(file)), part


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_cut_and_damaged_files_are_picture_errors(kind):
    """Wherever a file ends or a byte is wrong: pixels, or an error of ours, and no other one."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype="uint8")
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(PictureError, match="cut off or damaged|is not a picture"):
        read_picture(content[: len(content) // 2])
    random = np.random.default_rng(1)
    for _ in range(150):
        broken = bytearray(content[: random.integers(1, len(content) + 1)])
        for position in random.integers(0, min(len(broken), 200), 3):
            broken[position] = random.integers(256)
        for read in (read_picture, plain_picture):
            with contextlib.suppress(PictureError):
                read(bytes(broken))


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    bomb = png(60_000, 60_000, 8, 0, [])
    with pytest.raises(PictureError, match="more than the 100,000,000 allowed|pixels allowed"):
        read_picture(bomb)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 23)
    with pytest.raises(PictureError, match="6 x 4 pixels, more than the 23 allowed"):
        read_picture(encoded(Image.fromarray(GREY)))


BOMBS = """
import io, os, resource, struct, sys, zlib
from PIL import Image
from keras_shared.files.pictures import PictureError, read_picture

def encoded(kind, at, *numbers, **options):
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, kind, **options)
    content = bytearray(file.getvalue())
    place = content.find(at[0]) + at[1]
    struct.pack_into(*numbers[:1], content, place, *numbers[1:])
    return bytes(content)

def chunk(name, content):
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

def png(width, height, rows, *more):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = (b"\\x89PNG\\r\\n\\x1a\\n", head, *more, chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"".join(parts)

packer = zlib.compressobj(1)
rows = b"".join(packer.compress(bytes(20_001)) for _ in range(20_000)) + packer.flush()
text = b"a\\0\\0" + zlib.compress(bytes(200_000_000), 1)
bombs = {
    "png": png(20_000, 20_000, rows),
    "text": png(4, 4, zlib.compress(bytes(20)), chunk(b"zTXt", text)),
    "profile": png(4, 4, zlib.compress(bytes(20)), chunk(b"iCCP", text)),
    "gif": encoded("GIF", (b"GIF", 6), "<HH", 65_535, 65_535),
    "frame": encoded("GIF", (b",\\0\\0\\0\\0", 5), "<HH", 65_535, 65_535),
    "bmp": encoded("BMP", (b"BM", 18), "<ii", 60_000, -60_000),
    "jpeg": encoded("JPEG", (b"\\xff\\xc0", 5), ">HH", 65_000, 65_000),
    "webp": encoded("WEBP", (b"\\x9d\\x01\\x2a", 3), "<HH", 16_383, 16_383),
    "lossless": encoded("WEBP", (b"VP8L", 9), "<I", 16_383 | 16_383 << 14, lossless=True),
}
del rows, text
read_picture(png(4, 4, zlib.compress(bytes(20))))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, content in [*bombs.items(), ("pipe", sys.argv[1]), ("device", "/dev/zero")]:
    try:
        read_picture(content)
    except PictureError as error:
        print(name, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_take_no_memory_and_pipes_are_not_waited_for(tmp_path, fresh_python):
    os.mkfifo(tmp_path / "pipe.png")
    *lines, more = fresh_python(BOMBS.replace("\\\\", "\\"), tmp_path / "pipe.png").splitlines()
    said = {line.split()[0]: line for line in lines}
    assert len(said) == 11 and int(more) < 100  # MB
    for name in ("png", "gif", "frame", "bmp", "jpeg", "webp", "lossless"):
        assert "more than the 100,000,000" in said[name]
    assert "is no regular file" in said["pipe"] and "is no regular file" in said["device"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_whatever_the_bytes_are(kind):
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype="uint8")
    content = encoded(Image.fromarray(noise), kind)

    @fuzzed
    @given(mutated(content))
    def pixels_or_an_error_of_ours(broken):
        with contextlib.suppress(KerasSharedError):
            assert read_picture(broken).dtype == "uint8"
        with contextlib.suppress(KerasSharedError):
            assert plain_picture(broken)

    pixels_or_an_error_of_ours()


def test_what_a_graph_reads_alike_stays_as_it_is():
    image = Image.fromarray(COLOURS)
    for content in (encoded(image), encoded(image, "JPEG"), encoded(image.convert("L"))):
        assert plain_picture(content) is content
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (
        encoded(image, exif=exif), encoded(image, "JPEG", exif=exif), encoded(image, "BMP"),
        encoded(image, "GIF"), encoded(image, "WEBP"), encoded(image.convert("CMYK"), "JPEG"),
        encoded(image.convert("RGBA")), encoded(image.convert("1")), encoded(image.quantize(9)),
    ):  # fmt: skip
        plain = plain_picture(content)
        assert plain.startswith(b"\x89PNG")
        np.testing.assert_array_equal(read_picture(plain), read_picture(content))


def test_png_bytes_come_back():
    for pixels in (GREY[..., None], COLOURS):
        np.testing.assert_array_equal(read_picture(png_bytes(pixels)), pixels)
