"""A script in a warm process is what ``python script`` makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import run_script

SCRIPT = """
import atexit, multiprocessing, os, sys, warnings
atexit.register(print, "the end")
print(sys.argv, sys.path[0], __name__, __file__, os.getcwd(), multiprocessing.get_start_method())
print("an error", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "last",
    ["", "sys.exit(3)", "sys.exit('stop')", "raise OSError('no')", "warnings.warn('odd')"],
    ids=["ends", "code", "words", "raises", "warns"],
)
def test_it_prints_and_ends_alike(last: str, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(SCRIPT + last)
    expected = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = run_script(script, strict=True)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]
