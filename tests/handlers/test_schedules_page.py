"""The page of schedules: its code runs, and its pictures show what the code gives."""

from __future__ import annotations

import PIL.Image
import pytest

import cookfire.handlers.param_scheduler
import cookfire.handlers.state_param_scheduler
from tools.draw_schedules import DOCS, blocks, digest, values_of

BLOCKS = blocks()


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_picture_shows_what_its_code_gives(number: int) -> None:
    code, picture = BLOCKS[number]
    with PIL.Image.open(DOCS / picture) as image:
        shown = image.info["Description"]
    assert shown == digest(values_of(code)), "run python tools/draw_schedules.py"
    assert (DOCS / picture).stat().st_size < 20_000


def test_every_schedule_is_drawn() -> None:
    page = (DOCS / "schedules.md").read_text()
    names = [
        *cookfire.handlers.param_scheduler.__all__,
        *cookfire.handlers.state_param_scheduler.__all__,
    ]
    bases = {"BaseParamScheduler", "CyclicalScheduler", "ParamScheduler", "StateParamScheduler"}
    for name in set(names) - bases:
        assert f"### {name}\n" in page
    assert sorted(path.name for path in (DOCS / "pictures").glob("*.png")) == sorted(
        picture.removeprefix("pictures/") for _, picture in BLOCKS
    )
