"""Published weights: the library reads what we write, and we read what it writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from cookfire.handlers import DamagedCheckpoint, EMAHandler, export_weights, load_weights
from tests.handlers.helpers import model
from tests.handlers.ranks import publish_together


class Tied(nn.Module):
    """Two names for one weight, a transposed parameter, and a buffer of half precision."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.decoder = nn.Linear(3, 3), nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight
        self.mixed = nn.Parameter(torch.randn(4, 2).t())
        self.register_buffer("scale", torch.randn(2).bfloat16())
        self.register_buffer("count", torch.tensor(3))


def test_the_library_reads_every_tensor_as_it_was(tmp_path: Path) -> None:
    net, path = Tied(), tmp_path / "tied.safetensors"
    export_weights(net, path, {"license": "BSD-3-Clause", "accuracy": "0.93"})
    loaded = safetensors.torch.load_file(path)
    state = net.state_dict()
    assert sorted(loaded) == sorted(set(state) - {"decoder.weight"})
    for name, value in loaded.items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {
            "format": "pt", "license": "BSD-3-Clause", "accuracy": "0.93",
            "decoder.weight": "encoder.weight",
        }  # fmt: skip
    # Its own way to load tied weights, too.
    other = Tied(seed=1)
    safetensors.torch.load_model(other, path)
    assert all(map(torch.equal, other.state_dict().values(), state.values()))


def test_it_is_loaded_back_with_its_metadata_and_tied_tensors_stay_tied(tmp_path: Path) -> None:
    net, other, path = Tied(), Tied(seed=1), tmp_path / "tied.safetensors"
    export_weights(net, path, {"data": "MNIST"})
    assert load_weights(other, path) == {"data": "MNIST"}
    assert all(map(torch.equal, other.state_dict().values(), net.state_dict().values()))
    assert other.decoder.weight is other.encoder.weight
    # A model of which the library wrote the state, with no metadata at all.
    safetensors.torch.save_file(model(2.0).state_dict(), path)
    linear = model()
    assert load_weights(linear, path) == {}
    assert torch.equal(linear.weight, torch.full((2, 3), 2.0))


def test_equal_weights_are_equal_bytes_and_nothing_else_is_left_in_the_folder(
    tmp_path: Path,
) -> None:
    metadata = {f"key {number}": "ä" for number in range(8)}
    digests = set()
    for number in range(4):
        path = tmp_path / f"{number}.safetensors"
        export_weights(Tied(), path, dict(sorted(metadata.items(), reverse=number % 2 == 0)))
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
    assert len(list(tmp_path.iterdir())) == 4


def test_wrappers_are_taken_off_and_an_average_is_written_as_its_model(tmp_path: Path) -> None:
    net, path = model(1.0), tmp_path / "model.safetensors"
    average = EMAHandler(net)
    with torch.no_grad():
        net.weight.fill_(2.0)
    for wrapped in (DataParallel(net), torch.compile(net), nn.Sequential(torch.compile(net))):
        export_weights(wrapped, path)
        assert not any("module" in name or "_orig" in name for name in safetensors_names(path))
        target = nn.Sequential(model()) if isinstance(wrapped, nn.Sequential) else model()
        load_weights(torch.compile(target), path)
        assert next(target.parameters()).mean() == 2.0
    export_weights(average, path)
    assert torch.equal(safetensors.torch.load_file(path)["weight"], torch.ones(2, 3))


def safetensors_names(path: Path) -> list[str]:
    return list(safetensors.torch.load_file(path))


def test_several_processes_write_one_whole_file_also_of_a_sharded_model(
    tmp_path: Path, processes: Callable[..., list[Any]]
) -> None:
    first, second = processes(2, publish_together, str(tmp_path))
    for name in ("ddp", "fsdp"):
        assert safetensors_names(tmp_path / f"{name}.safetensors") == ["bias", "weight"]
    expected = first["weights"]
    for rank in (first, second):
        assert rank["loaded"] == expected
        assert "FileNotFoundError" in rank["error"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("bias"), "it lacks 'bias'"),
        (lambda state: state.update(more=torch.ones(1)), "the model has no 'more'"),
        (lambda state: state.update(weight=torch.ones(3, 2)),
         r"its 'weight' has the shape \(3, 2\), that of the model \(2, 3\)"),
    ],
)  # fmt: skip
def test_other_names_and_shapes_are_refused_and_nothing_is_loaded(
    change: Callable[[dict[str, Tensor]], Any], said: str, tmp_path: Path
) -> None:
    state = {name: value.clone() for name, value in model(1.0).state_dict().items()}
    change(state)
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    net = model()
    with pytest.raises(ValueError, match=f"other.safetensors: not the weights of .*: {said}"):
        load_weights(net, tmp_path / "other.safetensors")
    assert torch.equal(net.weight, torch.zeros(2, 3))


def test_what_is_no_whole_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    export_weights(model(), path)
    for content in (path.read_bytes()[:-1], b"", b"PK\x03\x04 of torch.save"):
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpoint, match="incomplete, or no safetensors file"):
            load_weights(model(), path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_weights(model(), tmp_path / "nowhere")


class Extra(nn.Linear):
    """Has a state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        """Return it."""
        return {"version": 1}


def test_what_cannot_be_published_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(TypeError, match="'_extra_state' is a dict: .* dense tensors only"):
        export_weights(Extra(2, 2), path)
    with pytest.raises(TypeError, match="'weight' is a tensor without data"):
        export_weights(nn.Linear(2, 2, device="meta"), path)
    with pytest.raises(TypeError, match="a module or an EMAHandler, got dict"):
        export_weights({}, path)
    with pytest.raises(TypeError, match="metadata must be strings, got 'epochs': 3"):
        export_weights(model(), path, {"epochs": 3})
    with pytest.raises(ValueError, match="'format' is taken"):
        export_weights(model(), path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"'decoder.weight' is taken, by another name"):
        export_weights(Tied(), path, {"decoder.weight": "mine"})
    assert not list(tmp_path.iterdir())
