"""A progress bar in a notebook that is run; apart, as it starts a kernel."""

import re

import pytest

pytest.importorskip("ipykernel", reason="ipykernel is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

CELL = """
from cookfire.engine import Engine
from cookfire.handlers import ProgressBar

engine = Engine(lambda engine, batch: batch / 2)
ProgressBar(persist=True, ncols=80, mininterval=0).attach(
    engine, output_transform=lambda output: {"loss": output}
)
engine.run(range(4), max_epochs=2).iteration
"""


def terminal(text):
    """Return the lines that are left when carriage returns have gone back."""
    return [line.split("\r")[-1].rstrip() for line in re.sub(r"\d\d:\d\d", "0", text).split("\n")]


def test_bars_are_drawn_in_place_and_stay(monkeypatch, tmp_path):
    import nbformat

    # Nothing of the user's own Jupyter.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    (cell,) = notebook.cells
    drawn = "".join(output.get("text", "") for output in cell.outputs)
    assert cell.outputs[-1]["data"]["text/plain"] == "8"
    last = [line for line in terminal(drawn) if line.startswith("Epoch")]
    assert [line[:17] for line in last] == ["Epoch [1/2]: [4/4", "Epoch [2/2]: [4/4"]
    assert all("100%|" in line and "loss=1.5 [0<0]" in line for line in last)
    assert drawn.count("\r") >= 8
