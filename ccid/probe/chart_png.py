"""A picture as PNG, drawn by Pillow. The extra ``pyccid[plot]`` installs Pillow."""

from __future__ import annotations

from ccid.errors import CcidError
from ccid.probe.chart import Box, Picture

SCALE = 2
"""Pixels of the PNG for one pixel of the picture."""
NEEDS_PILLOW = "a PNG needs Pillow 10.1 or newer; get it with: pip install 'pyccid[plot]'"


def write(drawn: Picture, file: str) -> None:
    """Write a picture into ``file``.

    Raises:
        CcidError: Pillow is not installed, or cannot draw text.
        OSError: The file cannot be written.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise CcidError(NEEDS_PILLOW) from None
    image = Image.new("RGB", (drawn.width * SCALE, drawn.height * SCALE), "#ffffff")
    pen = ImageDraw.Draw(image)
    for shape in drawn.shapes:
        x, y = shape.x * SCALE, shape.y * SCALE
        if isinstance(shape, Box):
            far = (x + shape.width * SCALE - 1, y + shape.height * SCALE - 1)
            pen.rectangle([(x, y), far], fill=shape.colour)
        else:
            try:
                font = ImageFont.load_default(size=shape.size * SCALE)
            except TypeError:  # before 10.1, Pillow had one size
                raise CcidError(NEEDS_PILLOW) from None
            anchor = "ls" if shape.anchor == "start" else "rs"
            pen.text((x, y), shape.text, fill=shape.colour, font=font, anchor=anchor)
    image.save(file, "PNG")
