"""Pictures as people have them, brought to plain pixels: the same for every way to ask a model."""

import io
import os
import pathlib
import re
import warnings
from typing import TYPE_CHECKING

from keras_shared.errors import KerasSharedError, attempt, boundary
from keras_shared.files.bounded import read_bytes
from keras_shared.files.limits import MOST_PICTURE, MOST_PIXELS

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
KINDS = (  # first bytes of what people take for a picture, or that is one of another format
    (rb"%PDF", "a PDF document"),
    (rb"(II\*\0|MM\0\*)", "a TIFF image"),
    (rb".{4}ftyp(heic|heix|mif1|msf1)", "a HEIC photo"),
    (rb".{4}ftypavi[fs]", "an AVIF image"),
    (rb"\s*(<\?xml.*?|<!DOCTYPE svg.*?|<!--.*?-->\s*)*<svg", "an SVG drawing"),
    (rb"\s*<(!DOCTYPE html|html)", "a web page"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`"),
    (rb"[\t\n\r -~]+$", "text"),
)
JPEG_END = b"\xff\xd9"
DAMAGED, AGAIN = "is cut off or damaged", "Copy it again."


class PictureError(KerasSharedError, ValueError):
    """A file is no picture that can be read; the message names it and the formats that can."""


def read_picture(source: str | os.PathLike[str] | bytes) -> "np.ndarray":
    """The pixels of a picture as a person sees it.

    A photo is turned upright by its EXIF note, transparency is put on white paper, of an animation
    the first frame is taken; 16 bits become 8, palettes and CMYK become colours.

    Args:
        source: a file, or its bytes: PNG, JPEG, GIF, BMP or WebP.

    Returns:
        uint8 (height, width, 1) of a grey picture, (height, width, 3) of a coloured one.

    Raises:
        PictureError: for a file that is missing or no such picture, or too large.

    Example:
        >>> import numpy as np
        >>> from keras_shared.files.pictures import png_bytes, read_picture
        >>> read_picture(png_bytes(np.full((4, 6, 1), 9, "uint8")))[0, 0].tolist()
        [9]
    """
    import numpy as np
    from PIL import Image, ImageOps

    name = _name(source)
    image = _opened(source, name)
    with boundary(f"{name} {DAMAGED}", PictureError, AGAIN):
        image.seek(0)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":  # 16 bits, or what is made of them
            wide = np.array(image, "int32")
            clear = image.info.get("transparency")
            if clear is not None:
                wide[wide == clear] = 65535
            wide += 128  # to round
            wide //= 257
            return np.clip(wide, 0, 255, out=wide).astype("uint8")[..., None]
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            ink = image.convert("RGBA")
            paper = Image.new("RGBA", ink.size, "white")
            grey = image.mode in ("1", "L", "LA")
            image = Image.alpha_composite(paper, ink).convert("L" if grey else "RGB")
        if image.mode == "1":
            image = image.convert("L")
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def why_no_picture(file: str | os.PathLike[str]) -> str:
    """Why a file is no picture; empty if it is one.

    Its head is read, and its checksums; all of it, if there are none and it lacks an end.
    """
    name = _name(file)

    def verify() -> None:
        image = _opened(file, name)
        whole = image.format not in ("GIF", "BMP", "JPEG", "MPO")
        if image.format in ("JPEG", "MPO"):
            content: io.BytesIO = getattr(image, "fp")  # noqa: B009 - Pillow declares it elsewhere
            whole = JPEG_END in content.getvalue()[-64:]
        with boundary(f"{name} {DAMAGED}", PictureError, AGAIN):
            image.verify() if whole else image.load()

    return str(attempt(verify, PictureError)[1] or "")


def bright_ground(pixels: "np.ndarray") -> bool:
    """Whether most of an image's border is bright, as paper with dark ink on it.

    Args:
        pixels: (height, width, channels), 0 to 255.

    Example:
        >>> import numpy as np
        >>> from keras_shared.files.pictures import bright_ground
        >>> bright_ground(np.full((4, 6, 1), 255))
        True
    """
    import numpy as np

    border = np.concatenate([pixels[[0, -1]].ravel(), pixels[:, [0, -1]].ravel()])
    return bool(np.median(border) > 127)


def png_bytes(pixels: "np.ndarray") -> bytes:
    """Pixels as the bytes of a PNG file, which every published graph reads.

    Args:
        pixels: uint8 (height, width, 1 or 3).

    Example:
        >>> import numpy as np
        >>> from keras_shared.files.pictures import png_bytes
        >>> png_bytes(np.zeros((4, 6, 3), "uint8"))[:4]
        b'\\x89PNG'
    """
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def plain_picture(content: bytes) -> bytes:
    """The bytes of any picture as those of one that a graph reads as a person sees it.

    Args:
        content: bytes of a picture. A PNG or JPEG comes back as it is where it is grey or RGB and
            has neither transparency nor an EXIF note to turn it; all others as PNG.

    Raises:
        PictureError: for bytes that are no picture.

    Example:
        >>> import numpy as np
        >>> from keras_shared.files.pictures import plain_picture, png_bytes
        >>> content = png_bytes(np.zeros((4, 6, 3), "uint8"))
        >>> plain_picture(content) is content
        True
    """
    image = _opened(content, _name(content))
    plain = image.format in ("PNG", "JPEG", "MPO") and image.mode in ("L", "RGB")
    # of a note that cannot be read nothing is known; a graph does not read it either
    turned, _ = attempt(lambda: image.getexif().get(0x0112, 1) != 1)
    if plain and "transparency" not in image.info and not turned:
        return content
    return png_bytes(read_picture(content))


def _name(source: str | os.PathLike[str] | bytes) -> str:
    return f"{len(source):,} bytes" if isinstance(source, bytes) else os.fspath(source)


def _kind(content: bytes) -> str:
    """A sentence on what the bytes are instead, where their beginning tells."""
    for start, kind in KINDS:
        if re.match(start, content[:1000], re.DOTALL | re.IGNORECASE):
            return f" It is {kind}."
    return ""


def _opened(source: str | os.PathLike[str] | bytes, name: str) -> "Image":
    from PIL import Image

    allowed = f"expected {', '.join(FORMATS[:-1])} or WebP"
    if not isinstance(source, bytes):
        if pathlib.Path(source).is_dir():
            raise PictureError(f"{name} is a folder: {allowed}.")
        source = read_bytes(source, MOST_PICTURE, PictureError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(source), formats=FORMATS)
        if image.format == "PNG" and "transparency" in image.info:
            _scale_clear(image, depth=source[24])
    except Image.DecompressionBombError:
        raise PictureError(f"{name} has more than the {MOST_PIXELS:,} pixels allowed.") from None
    except Exception as error:  # of which Pillow raises many kinds
        what = "is empty" if not source else "is not a picture that can be read"
        raise PictureError(f"{name} {what}: {allowed}.{_kind(source)}") from error
    if image.width * image.height > MOST_PIXELS:
        size = f"{image.width} x {image.height}"
        raise PictureError(f"{name} has {size} pixels, more than the {MOST_PIXELS:,} allowed.")
    return image


def _scale_clear(image: "Image", depth: int) -> None:
    """Bring what a PNG calls transparent to 8 bits, as Pillow brings the pixels alone."""
    clear = image.info["transparency"]
    if image.mode == "L" and depth in (2, 4):
        most = 2**depth - 1
        image.info["transparency"] = (clear & most) * (255 // most)
    elif image.mode == "RGB" and depth == 16:
        # of the pixels Pillow keeps no more: those that differ in their low bits are clear too
        image.info["transparency"] = tuple(value >> 8 for value in clear)
