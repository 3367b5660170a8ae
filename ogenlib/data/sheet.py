"""A contact sheet: pictures in a labelled grid on white.

Notation: a cell is `size` pixels of picture with one line of caption below it; sizes are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN = 6
ELLIPSIS = "…"


def contact_sheet(
    images: Sequence[Image.Image], captions: Sequence[str], columns: int = 12, size: int = 64
) -> Image.Image:
    """Images row by row, each fitted whole into `size` x `size` and centred, with its caption below. -> RGB.

    A caption that is wider than its cell ends in an ellipsis. Transparent images lie on white. Fewer images
    than columns make a narrower sheet. Defaults: twelve small pictures fill a screen's width.

    Raises ValueError if there is no image, if the counts differ, or if `columns` or `size` is below 1.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images and {len(captions)} captions: give one caption per image")
    if not images:
        raise ValueError("no images given: a contact sheet needs at least one")
    if columns < 1 or size < 1:
        raise ValueError(f"columns={columns}, size={size}: both must be 1 or more")
    font = ImageFont.load_default()
    across = min(columns, len(images))
    down = -(-len(images) // across)
    line = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else 11
    cell_width, cell_height = size + MARGIN, size + line + MARGIN
    sheet = Image.new("RGB", (across * cell_width + MARGIN, down * cell_height + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + (index % across) * cell_width
        top = MARGIN + (index // across) * cell_height
        picture = fitted(image, size)
        corner = left + (size - picture.width) // 2, top + (size - picture.height) // 2
        sheet.paste(picture, corner, picture)
        text = shortened(" ".join(caption.split()), size, font)
        pen.text((left + (size - font.getlength(text)) / 2, top + size), text, fill="black", font=font)
    return sheet


def fitted(image: Image.Image, size: int) -> Image.Image:
    """The whole image as RGBA with its longer side `size` pixels; small ones are enlarged."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS)


def shortened(text: str, width: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """`text`, or as much of its beginning as fits into `width` pixels together with an ellipsis.

    Where not even one letter and the ellipsis fit, the ellipsis alone.
    """
    mark = ELLIPSIS
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType: a Latin-1 bitmap font
        text, mark = text.encode("latin-1", "replace").decode("latin-1"), "..."
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep and font.getlength(text[:keep].rstrip() + mark) > width:
        keep -= 1
    return text[:keep].rstrip() + mark
