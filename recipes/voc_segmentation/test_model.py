"""The nets, what moves their weights, and what is measured of them, against other code."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchmetrics.classification
from torch import Tensor, nn

from cookfire.engine import Engine
from cookfire.handlers import recipe

from . import data
from .conftest import CONFIG, in_processes
from .metrics import HEADLINE, average_views, create_evaluator
from .model import create_model
from .pairs import find
from .palette import CLASSES, VOID
from .pictures import WorstImages, draw_iou, draw_shares, mean_iou
from .solver import create_optimizer, create_schedule, summed_loss

# Nets


@pytest.mark.parametrize(
    "changes",
    [
        {"net": "light"},
        {"net": "timm", "encoder": "resnet10t"},
        {"net": "lraspp_mobilenet_v3_large"},
        {"net": "deeplabv3_mobilenet_v3_large", "auxiliary": 0.4},
    ],
)
def test_a_net_takes_images_of_any_size_and_is_made_from_the_seed(changes: dict[str, Any]) -> None:
    config = replace(CONFIG, **changes)
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(create_model(config))
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.ndim != 4 or one.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = nets[0].eval()(torch.randn(1, 3, 45, 61))
    assert set(outputs) == ({"out", "aux"} if config.auxiliary else {"out"})
    assert outputs["out"].shape == (1, len(CLASSES), 45, 61)
    groups = create_optimizer(config, nets[0]).param_groups
    learned = sum(value.numel() for value in nets[0].parameters())
    assert all(group["params"] for group in groups)
    assert sum(value.numel() for group in groups for value in group["params"]) == learned


def test_an_encoder_that_timm_does_not_have_is_one_line() -> None:
    with pytest.raises(recipe.RecipeError, match=r"encoder: timm .* has no 'resnet19'") as caught:
        create_model(replace(CONFIG, net="timm", encoder="resnet19"))
    assert "\n" not in str(caught.value)


# What a step does


def test_the_loss_is_the_mean_over_pixels_that_are_not_void() -> None:
    logits, masks = torch.randn(2, 21, 9, 7), torch.randint(21, (2, 9, 7))
    masks[0, :4] = VOID
    outputs = {"out": logits, "aux": logits.flip(1)}
    known = masks != VOID
    log_probabilities = logits.log_softmax(1).movedim(1, -1)[known]
    expected = -log_probabilities.gather(1, masks[known].unsqueeze(1)).sum()
    torch.testing.assert_close(summed_loss({"out": logits}, masks, 0.0), expected)
    aux = F.cross_entropy(logits.flip(1), masks, ignore_index=VOID, reduction="sum")
    torch.testing.assert_close(summed_loss(outputs, masks, 0.4), expected + 0.4 * aux)
    things = known & (masks > 0)
    rest = summed_loss({"out": logits}, masks.where(things, VOID), 0.0)
    weighted = summed_loss({"out": logits}, masks, 0.0, 0.25)
    torch.testing.assert_close(weighted, rest + 0.25 * (expected - rest))


def test_the_poly_schedule_falls_to_nothing_and_the_backbone_has_its_own_step_size() -> None:
    config = replace(CONFIG, lr=0.5, backbone_lr=0.1, power=0.9, warmup=0.0)
    optimizer = create_optimizer(config, create_model(config))
    schedule = create_schedule(config, optimizer, 20)
    seen = []
    for _ in range(20):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = 0.5 * (1 - np.arange(20) / 20) ** 0.9
    np.testing.assert_allclose(np.array(seen), np.stack([0.1 * expected, expected], axis=1))
    config = replace(config, warmup=0.2)
    optimizer = create_optimizer(config, create_model(config))
    rising = create_schedule(config, optimizer, 20).lr_lambdas[0]
    np.testing.assert_allclose(
        [rising(step) / (1 - step / 20) ** 0.9 for step in range(6)], [0.2, 0.4, 0.6, 0.8, 1, 1]
    )


# Measuring


class Noisy(nn.Module):
    """Logits that depend on the image alone, and are right for some pixels."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(x.shape[2] * 1000 + x.shape[3])
        noise = torch.randn(len(x), len(CLASSES), *x.shape[2:], generator=generator)
        noise[:, 0] += 2
        return {"out": noise + x.mean(dim=1, keepdim=True)}


def real_or_drawn(pairs: Path) -> Path:
    """The mirror's photographs where there are any."""
    mirror = Path(os.environ.get("COOKFIRE_MIRROR", "nowhere"))
    return mirror if (mirror / "VOCdevkit" / "VOC2012").is_dir() else pairs


def measure(folder: Path, count: int = 8) -> dict[str, Any]:
    pairs = find(folder, "val")[:count]
    loader = data.load_validation(CONFIG, data.WholePairs(pairs))
    return dict(create_evaluator(Noisy()).run(loader).metrics)


def _measure_in_two(rank: int, folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out / 's'}", rank=rank, world_size=2)
    torch.save(measure(folder, 7), out / f"{rank}.pt")
    dist.destroy_process_group()


def test_what_is_measured_is_an_independent_count_on_one_process_and_on_two(
    tmp_path: Path, pairs: Path
) -> None:
    folder = real_or_drawn(pairs)
    assert in_processes(2, _measure_in_two, folder, tmp_path) == [0, 0]
    matrix = np.zeros((21, 21), np.int64)
    jaccard = torchmetrics.classification.MulticlassConfusionMatrix(21, ignore_index=VOID)
    losses, pixels = 0.0, 0
    for pair in find(folder, "val")[:7]:
        image, mask = pair.read()
        x = data.normalise(torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0))
        logits = Noisy()(x)["out"]
        known = mask != VOID
        np.add.at(matrix, (mask[known], logits[0].argmax(0).numpy()[known]), 1)
        truth = torch.from_numpy(mask).long()[None]
        jaccard.update(logits, truth)
        losses += float(F.cross_entropy(logits, truth, ignore_index=VOID, reduction="sum"))
        pixels += int(known.sum())
    hits = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - hits
    iou = hits / np.maximum(union, 1)
    expected = {
        "miou": iou.mean(),
        "miou_objects": iou[1:].mean(),
        "pixel_accuracy": hits.sum() / matrix.sum(),
        "dice": (2 * hits / np.maximum(matrix.sum(0) + matrix.sum(1), 1)).mean(),
    }
    results = [measure(folder, 7), *(torch.load(tmp_path / f"{rank}.pt") for rank in range(2))]
    for metrics in results:
        assert np.array_equal(metrics["confusion"].numpy(), matrix)
        assert torch.equal(metrics["confusion"], jaccard.compute())
        np.testing.assert_allclose(metrics["iou"].numpy(), iou, rtol=0, atol=1e-12)
        for name, value in expected.items():
            assert float(metrics[name]) == pytest.approx(value, abs=1e-9)
        assert float(metrics["loss"]) == pytest.approx(losses / pixels, rel=1e-5)
        assert set(HEADLINE) <= set(metrics)


def test_views_are_the_mean_probability_of_scaled_and_mirrored_images() -> None:
    x = torch.randn(2, 3, 20, 28)
    net = create_model(CONFIG).eval()
    with torch.no_grad():
        assert torch.equal(average_views(net, x, (1.0,)), net(x)["out"])
        found = average_views(net, x, (1.0, 1.5), flip=True)
        larger = F.interpolate(x, size=(30, 42), mode="bilinear", antialias=False)
        views = [
            net(x)["out"],
            net(x.flip(-1))["out"].flip(-1),
            F.interpolate(net(larger)["out"], size=(20, 28), mode="bilinear"),
            F.interpolate(net(larger.flip(-1))["out"], size=(20, 28), mode="bilinear").flip(-1),
        ]
    expected = torch.stack([view.softmax(1) for view in views]).mean(0)
    torch.testing.assert_close(found.exp(), expected)


# Pictures


def test_the_worst_images_are_those_of_the_least_mean_iou_worst_first(pairs: Path) -> None:
    whole = data.WholePairs(find(pairs, "val"))
    evaluator = create_evaluator(Noisy())
    worst = WorstImages(evaluator)
    for _ in range(2):  # each run begins anew
        evaluator.run(data.load_validation(replace(CONFIG, validation_batch_size=3), whole))
    scores = dict(worst.compute())
    assert sorted(scores) == list(range(len(whole)))
    assert list(scores.values()) == sorted(scores.values())


def test_an_image_s_mean_iou_is_over_the_classes_that_are_there() -> None:
    mask = torch.tensor([[0, 0, 5], [VOID, 5, 5]])
    predicted = torch.tensor([[0, 5, 5], [9, 5, 2]])
    assert mean_iou(predicted, mask) == pytest.approx((1 / 2 + 2 / 4 + 0 / 1) / 3)
    assert mean_iou(mask, torch.full_like(mask, VOID)) == 1.0


def test_bars_and_shares_are_drawn() -> None:
    iou = torch.arange(21) / 20
    figure = draw_iou(iou)
    ends = [bar.get_window_extent().width for bar in figure.axes[0].patches]
    assert np.array(ends) / ends[-1] == pytest.approx(iou.numpy(), abs=1e-6)
    assert "mean 0.500" in figure.axes[0].get_title()
    counts = torch.zeros(21, 21, dtype=torch.int64)
    counts[3, 3], counts[3, 0] = 30, 10
    texts = {text.get_text() for text in draw_shares(counts).axes[0].texts}
    assert texts == {"75", "25"}
    assert isinstance(create_evaluator(Noisy()), Engine)
