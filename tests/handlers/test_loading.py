"""What is loaded fits, or nothing is loaded and the error says what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from cookfire.handlers import Checkpoint, DiskSaver
from cookfire.handlers._resume_points import ResumePoints
from tests.handlers.helpers import checkpoints, engine_at, model


def saved(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of a model and its optimizer, and the like objects to load it into."""
    net = model(5.0)
    Checkpoint({"model": net, "optimizer": SGD(net.parameters())}, folder)(engine_at(1))
    fresh = model(0.0)
    return folder / "checkpoint_1.pt", {"model": fresh, "optimizer": SGD(fresh.parameters())}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": SGD([torch.zeros(1)])}, "'optimizer' does not fit: it is of groups of"),
        ({"model": nn.Linear(9, 9)}, r"'model' does not fit: its 'weight' has the shape \(2, 3\)"),
        ({"model": nn.Linear(3, 2, bias=False)}, "'model' does not fit: the model has no 'bias'"),
        ({"head": model()}, "has no 'head'; it has 'model', 'optimizer'"),
    ],
)
def test_before_anything_is_loaded_it_is_known_whether_all_fits(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path, objects = saved(tmp_path)
    for load, place in ((Checkpoint.load_objects, path), (Checkpoint.load_newest, tmp_path)):
        arguments = (place, objects | change) if place == tmp_path else (objects | change, place)
        with pytest.raises(ValueError, match=f"{path.name}.*{words}"):
            load(*arguments)
    assert objects["model"].weight.eq(0).all()


def test_one_object_under_another_name_is_told(tmp_path: Path) -> None:
    path, objects = saved(tmp_path)
    with pytest.raises(ValueError, match="has no 'net'; it has 'model', 'optimizer'"):
        Checkpoint.load_objects({"net": objects["model"]}, path)
    bare = torch.load(path, weights_only=True)["model"]
    Checkpoint.load_objects({"net": objects["model"]}, bare)
    assert objects["model"].weight.eq(5).all()


def test_a_folder_among_the_files_is_no_checkpoint(tmp_path: Path) -> None:
    path, objects = saved(tmp_path)
    (tmp_path / "zz.pt").mkdir()
    assert Checkpoint.load_newest(tmp_path, objects) == path
    points = ResumePoints(tmp_path / "run")
    points.save(3, {"step": 3})
    (tmp_path / "run" / "state_9.pt").mkdir()
    found = points.newest()
    assert found is not None
    assert found.state == {"step": 3}


def test_without_atomic_too_a_checkpoint_can_be_loaded_safely_or_is_refused(
    tmp_path: Path,
) -> None:
    import numpy as np

    saver = DiskSaver(tmp_path, atomic=False)
    saver({"score": np.float64(0.5)}, "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"score": 0.5}
    with pytest.raises(TypeError, match=r"b.pt: not saved, for it could not be loaded safely"):
        saver({"path": tmp_path}, "b.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_what_a_function_keeps_of_a_background_save_stays_as_it_was() -> None:
    kept: dict[str, Any] = {}
    net = model()

    def keep(checkpoint: Any, filename: str) -> None:
        kept[filename] = checkpoint

    handler = Checkpoint({"model": net}, keep, n_saved=None, background=True)
    for step in range(1, 6):
        with torch.no_grad():
            net.weight.fill_(step)
        handler(engine_at(step))
    handler.wait()
    for step in range(1, 6):
        assert kept[f"model_{step}.pt"]["weight"].eq(step).all()


def test_an_error_of_a_rename_names_the_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(self: Path, target: Path) -> Path:
        raise FileNotFoundError(2, "No such file or directory", str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", lose)
    monkeypatch.setattr("os.replace", lose)
    monkeypatch.setattr("os.rename", lose)
    with pytest.raises(FileNotFoundError) as caught:
        DiskSaver(tmp_path)({"step": 1}, "a.pt")
    assert str(caught.value) == f"[Errno 2] No such file or directory: '{tmp_path / 'a.pt'}'"
    assert checkpoints(tmp_path) == []
