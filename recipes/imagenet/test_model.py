"""Models by name, their weights, what learns how fast, and what is exported."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from cookfire.handlers import export_weights, load_weights, recipe

from . import export, train
from .config import Config
from .conftest import CLASSES, CONFIG, run_in
from .model import create_model, head_parameters, set_training
from .solver import create_optimizer, create_schedule

BN = replace(CONFIG, options={"channels": [8, 8, 16, 16], "stem_width": 8})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", r"'resnet5' is no model of timm's; near it: .*resnet50"),
        ("efficientnetb0", r"near it: .*efficientnet_b0"),
        ("torchvision.resnet5", r"no classifier of torchvision's; near it: .*torchvision.resnet50"),
        ("torchvision.fcn_resnet50", r"no classifier of torchvision's; near it"),
        ("shuffle", r"near it: torchvision.shufflenet"),
        ("@@@@", r"; there are \d+, see timm.list_models\(\)"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(name: str, message: str) -> None:
    with pytest.raises(recipe.RecipeError, match=message):
        create_model(replace(CONFIG, model=name, options={}), 4)


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "torchvision.squeezenet1_1"])
def test_any_model_gets_a_classifier_for_the_classes(name: str) -> None:
    options: dict[str, object] = {"img_size": 64} if "vit" in name else {}
    config = replace(CONFIG, model=name, options=options)
    net = create_model(config, 7).eval()
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    shapes = [
        tensor.shape[0] for name, tensor in net.state_dict().items() if name in head_parameters(net)
    ]
    assert shapes == [7, 7]


@pytest.mark.parametrize("name", ["test_resnet", "torchvision.squeezenet1_1"])
def test_an_unknown_option_is_told_of(name: str) -> None:
    with pytest.raises(recipe.RecipeError, match=r"options: .* does not take them: .*depht"):
        create_model(replace(CONFIG, model=name, options={"depht": 3}), 4)


def test_weights_that_can_not_be_downloaded_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(recipe.RecipeError, match=r"can't be had \(OSError: no network\); download"):
        create_model(replace(CONFIG, weights="pretrained"), 4)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_a_file_are_taken_but_for_a_classifier_of_other_classes(
    tmp_path: Path, suffix: str
) -> None:
    torch.manual_seed(1)
    other, path = create_model(BN, 9), tmp_path / f"other{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": other.state_dict()}, path)
    else:
        export_weights(other, path)
    net = create_model(replace(BN, weights=str(path)), 4)
    ours, theirs = net.state_dict(), other.state_dict()
    for name, value in theirs.items():
        if name in head_parameters(net):
            assert len(ours[name]) == 4
        else:
            assert torch.equal(ours[name], value), name
    create_model(replace(BN, weights="nowhere.pt"), 4, trained=True)


def test_a_file_of_another_model_or_none_is_told_of(tmp_path: Path) -> None:
    wider = create_model(replace(BN, options={**BN.options, "channels": [8, 8, 16, 32]}), 4)
    torch.save(wider.state_dict(), tmp_path / "wider.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "wider.pt").read_bytes()[:500])
    (tmp_path / "cut.safetensors").write_bytes(b"12345678")
    for name, message in (
        ("wider.pt", r"not of this model: misfits in layer4\.0\.\S+, .* and \d+ more"),
        ("a.pt", "not of this model: lacks "),
        ("cut.pt", "damaged, or no weights"),
        ("cut.safetensors", "damaged, or no weights"),
        ("no.pt", "no such file"),
    ):
        with pytest.raises(recipe.RecipeError, match=message):
            create_model(replace(BN, weights=str(tmp_path / name)), 4)


# What learns


def test_a_frozen_backbone_keeps_its_weights_and_statistics(tmp_path: Path, images: Path) -> None:
    torch.save(create_model(BN, 4).state_dict(), tmp_path / "begin.pt")
    begin = torch.load(tmp_path / "begin.pt", weights_only=True)
    config = replace(BN, weights=str(tmp_path / "begin.pt"), backbone_lr=0.0, epochs=1)
    run = run_in(tmp_path, images)
    train.train(config, run)
    changed = {name for name, value in run.load("model.pt").items() if not value.equal(begin[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_a_training_from_a_file_learns_the_backbone_at_its_own_rate() -> None:
    config = replace(BN, backbone_lr=0.1, lr=0.5, weight_decay=0.01)
    net = create_model(config, 4)
    groups = create_optimizer(config, net).param_groups
    sizes: dict[int, tuple[float, float]] = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    for name, parameter in net.named_parameters():
        rate = 0.5 if name.startswith("fc.") else 0.05
        decay = 0.01 if parameter.ndim > 1 else 0.0
        assert sizes[id(parameter)] == pytest.approx((rate, decay)), name


def test_a_frozen_net_s_normalisations_stay_in_evaluation_mode() -> None:
    net = create_model(BN, 4)
    set_training(replace(BN, weights="x", backbone_lr=0.0), net, net)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    set_training(BN, net, net)
    assert all(module.training for module in norms)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_step_sizes_rise_and_fall_and_are_equal_within_a_step(accumulate: int) -> None:
    config = replace(CONFIG, epochs=4, warmup=1, lr=2.0, accumulate=accumulate, optimizer="sgd")
    optimizer = create_optimizer(config, nn.Sequential(nn.Linear(2, 2)))
    schedule = create_schedule(config, optimizer, 40)
    seen = []
    for _ in range(40):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    at = np.arange(40) // accumulate * accumulate
    falling = [(1 + math.cos(math.pi * (step - 10) / 30)) / 2 for step in at]
    np.testing.assert_allclose(seen, np.where(at < 10, (at + 1) / 11, falling) * 2.0)


# Export


def test_exported_files_agree_with_the_model_and_one_that_does_not_is_refused(
    trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(trained, images)
    differences = export.export(CONFIG, run)
    assert all(0 <= value < 1e-3 for value in differences.values())
    for name in ("model", "ema"):
        assert (run.outputs / f"{name}.onnx").stat().st_size > 1000
        net = create_model(CONFIG, len(CLASSES))
        notes = load_weights(net, run.outputs / f"{name}.safetensors")
        assert notes == {"model": CONFIG.model, "classes": ",".join(CLASSES)}
        assert torch.equal(net.state_dict()["fc.bias"], run.load(f"{name}.pt")["fc.bias"])

    class Wrong:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, _: object, given: dict[str, Any]) -> list[Any]:
            return [np.zeros((len(given["images"]), len(CLASSES)), np.float32)]

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)
    monkeypatch.setattr("onnxruntime.InferenceSession", Wrong)
    with pytest.raises(recipe.RecipeError, match=r"model\.onnx: its logits are .* apart"):
        export.export(CONFIG, run)


def test_the_profiles_models_are_there() -> None:
    here = Path(__file__).parent / "params.yaml"
    for profile in recipe.profiles(here):
        assert timm.is_model(recipe.load(here, profile, Config).model), profile
