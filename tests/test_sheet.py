"""The contact sheet."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from ogenlib.data.sheet import contact_sheet, shortened


def squares(colours: list[str], size: tuple[int, int] = (20, 20)) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in colours]


def boxes_of(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the pixels of exactly this colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_grid_row_by_row() -> None:
    sheet = contact_sheet(squares(["red", "lime", "blue"]), ["a", "b", "c"], columns=2, size=32)
    red, lime, blue = (boxes_of(sheet, c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert all(box[2] - box[0] == 32 and box[3] - box[1] == 32 for box in (red, lime, blue))
    assert red[1] == lime[1] and red[2] < lime[0]
    assert blue[0] == red[0] and blue[1] > red[3]
    assert sheet.getpixel((0, 0)) == (255, 255, 255) and sheet.mode == "RGB"


def test_fewer_images_make_a_narrower_sheet() -> None:
    two = contact_sheet(squares(["red", "blue"]), ["a", "b"], columns=12)
    twelve = contact_sheet(squares(["red"] * 12), ["a"] * 12, columns=12)
    assert two.width < twelve.width and two.height == twelve.height


def test_images_keep_their_shape_and_lie_on_white() -> None:
    sheet = contact_sheet(squares(["red"], (40, 10)), [""], size=40)
    left, top, right, bottom = boxes_of(sheet, (255, 0, 0))
    assert (right - left, bottom - top) == (40, 10)
    clear = contact_sheet([Image.new("RGBA", (8, 8), (0, 0, 0, 0))], [""], size=16)
    assert (np.asarray(clear) == 255).all()
    assert contact_sheet([Image.new("L", (500, 1))], ["a"], size=16).size[0] > 16


def test_captions_are_drawn_inside_their_cell() -> None:
    bare = np.asarray(contact_sheet(squares(["white", "white"]), ["", ""], columns=2, size=48))
    long = np.asarray(contact_sheet(squares(["white", "white"]), ["", "m" * 200], columns=2, size=48))
    assert (bare == 255).all()
    _, columns = np.nonzero((long < 255).any(-1))
    assert columns.min() > long.shape[1] // 2 - 1  # the first cell stays empty
    assert columns.max() < long.shape[1]


def test_shortened_fits_and_ends_in_an_ellipsis() -> None:
    font = ImageFont.load_default()
    assert shortened("cat", 64, font) == "cat"
    text = shortened("fluent emoji high contrast", 64, font)
    assert text.endswith("…") and font.getlength(text) <= 64
    kept = text[:-1]
    assert "fluent emoji high contrast".startswith(kept) and kept == kept.rstrip()
    assert font.getlength("fluent emoji high contrast"[: len(kept) + 2].rstrip() + "…") > 64
    assert shortened("cat", 1, font) == "…"


@pytest.mark.parametrize(
    ("images", "captions", "options", "words"),
    [
        (1, ["a", "b"], {}, "one caption per image"),
        (0, [], {}, "at least one"),
        (1, ["a"], {"columns": 0}, "columns=0"),
        (1, ["a"], {"size": 0}, "size=0"),
    ],
)
def test_bad_input(images: int, captions: list[str], options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        contact_sheet(squares(["red"] * images), captions, **options)
