"""Pictures and tables of what was taken for what."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.image import imread

from cookfire.handlers.recipe.pictures import confusion_table, draw_confusion, write_png

COUNTS = torch.tensor([[8, 2, 0], [0, 0, 0], [1, 0, 29]])
NAMES = ["cat", "dog", "automobile"]


def png(*arguments: object) -> bytes:
    file = io.BytesIO()
    write_png(draw_confusion(*arguments), file)
    return file.getvalue()


def test_a_line_an_image_says_what_was_taken_for_what():
    lines = confusion_table(COUNTS, NAMES).splitlines()
    assert lines[0] == "actual\tpredicted"
    pairs = ["cat\tcat"] * 8 + ["cat\tdog"] * 2 + ["automobile\tcat"]
    assert lines[1:] == [*pairs, *["automobile\tautomobile"] * 29]
    numbers = confusion_table(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert numbers == "actual\tpredicted\n0\t0\n1\t0\n"
    assert confusion_table(torch.zeros(2, 2)) == "actual\tpredicted\n"


def test_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="zip"):
        confusion_table(COUNTS, NAMES[:2])
    with pytest.raises(ValueError, match="labels"):
        draw_confusion(COUNTS, NAMES[:2])


@pytest.mark.parametrize("names", [None, NAMES])
def test_the_matrix_shows_each_count_in_its_place_and_shares_of_a_label_as_colours(names):
    (axes,) = draw_confusion(COUNTS, names).axes
    texts = {(*map(int, text.get_position()),): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "8", (1, 0): "2", (0, 2): "1", (2, 2): "29"}
    shares = np.array([[0.8, 0.2, 0], [0, 0, 0], [1 / 30, 0, 29 / 30]])
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == (names or ["0", "1", "2"])
    # Readable on dark and on pale ground.
    assert [text.get_color() for text in axes.texts] == ["white", "black", "black", "white"]


def test_a_picture_is_the_same_bytes_whatever_the_users_style():
    first = png(COUNTS, NAMES)
    assert png(COUNTS, NAMES) == first
    with rc_context({"font.size": 20, "image.cmap": "jet", "savefig.bbox": "tight"}):
        assert png(COUNTS, NAMES) == first
    assert b"Software" not in first
    assert imread(io.BytesIO(first)).shape[:2] == (600, 600)
