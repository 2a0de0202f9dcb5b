"""A recipe's mixed precision: there, or one line that says where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cookfire.handlers import recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("precision", "computed", "scaled"),
    [
        ("float32", torch.float32, False),
        ("bfloat16", torch.bfloat16, False),
        ("float16", torch.float16, True),
    ],
)
def test_a_layer_computes_in_the_precision_asked_and_its_gradient_is_the_losss(
    precision, computed, scaled
):
    autocast, scaler = recipe.mixed_precision(precision, CPU)
    assert scaler.is_enabled() == scaled
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    for _ in range(2):  # as in each step
        layer.zero_grad()
        with autocast:
            assert layer(x).dtype == computed
            loss = layer(x).float().sum() / 1e4
        torch.autograd.backward(scaler.scale(loss))
    factor = scaler.get_scale()
    assert (factor > 1) == scaled
    expected = (x.sum(dim=0) / 1e4).expand(3, 4)
    torch.testing.assert_close(layer.weight.grad / factor, expected, rtol=0.02, atol=2e-6)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("precision", "device", "advice"),
    [
        ("bfloat16", "meta", "give float32, or float16 on an older GPU"),
        ("float16", "meta", "give bfloat16 or float32"),
        ("float16", "xla", "give bfloat16 or float32"),
    ],
)
def test_a_precision_that_a_device_lacks_is_one_clear_line(precision, device, advice):
    message = rf"^precision: {precision} is not there on this device \({device}\); {advice}$"
    with pytest.raises(recipe.RecipeError, match=message):
        recipe.mixed_precision(precision, torch.device(device))


def test_an_older_gpu_has_float16_but_emulates_bfloat16(monkeypatch):
    asked = []

    def is_supported(including_emulation):
        asked.append(including_emulation)
        return False

    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch, "autocast", lambda *given, **options: (given, options))
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: enabled)
    with pytest.raises(recipe.RecipeError, match=r"bfloat16 is not there on this device \(cuda\)"):
        recipe.mixed_precision("bfloat16", GPU)
    assert asked == [False]
    expected = ((("cuda", torch.float16), {"enabled": True}), True)
    assert recipe.mixed_precision("float16", GPU) == expected


def test_float32_is_there_on_any_device():
    autocast, scaler = recipe.mixed_precision("float32", CPU)
    x = torch.ones(1, requires_grad=True)
    with autocast:
        assert scaler.scale(x) is x
