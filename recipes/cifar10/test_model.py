"""The nets, what moves their weights, and what is measured of them, against other code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD
from torchvision.models import resnet18

from cookfire.engine import Engine, Events
from cookfire.handlers import recipe

from . import seeds
from .conftest import CONFIG, in_processes
from .lookahead import Lookahead
from .metrics import average_views
from .mistakes import KEPT, WorstMistakes, draw_mistakes
from .model import ConvolutionGroup, FastNet, ResNet18, create_model
from .solver import create_optimizer, create_schedule

SMOOTH = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2
PICTURES = nn.functional.interpolate(SMOOTH, 32, mode="bilinear")


# Nets


def test_whitening_makes_outputs_uncorrelated_and_of_variance_one() -> None:
    net = create_model(CONFIG, PICTURES)
    assert isinstance(net, FastNet)
    with torch.no_grad():
        outputs = net.whitening(PICTURES).double()
    outputs = outputs.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    half = outputs.shape[1] // 2
    np.testing.assert_array_equal(outputs[:, half:], -outputs[:, :half])
    second_moments = outputs[:, :half].T @ outputs[:, :half] / len(outputs)
    # Of variance v / (v + 5e-4), where v are those of the patches, smallest first.
    patches = np.lib.stride_tricks.sliding_window_view(PICTURES.numpy(), (2, 2), axis=(2, 3))
    patches = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 12).astype(np.float64)
    variances = np.linalg.eigvalsh(patches.T @ patches / len(patches))
    expected = np.diag(variances / (variances + 5e-4))
    np.testing.assert_allclose(second_moments, expected, atol=2e-4)
    assert expected.diagonal().max() > 0.99


def test_convolutions_begin_as_the_identity() -> None:
    group = ConvolutionGroup(24, 32)
    x = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(group.conv1(x)[:, :24], x)
    assert group.conv1(x)[:, 24:].std() > 0.1
    y = torch.randn(2, 32, 8, 8)
    torch.testing.assert_close(group.conv2(y), y)


def test_the_fast_net_has_the_record_s_shapes() -> None:
    config = replace(CONFIG, widths=(64, 256, 256))
    net = create_model(config, PICTURES)
    x = torch.randn(2, 3, 32, 32)
    shapes = []
    for layer in list(net.children())[:-1]:
        for part in layer if isinstance(layer, nn.Sequential) else [layer]:
            x = part(x)
            shapes.append(tuple(x.shape))
    assert shapes == [(2, 24, 31, 31), (2, 64, 15, 15), (2, 256, 7, 7), (2, 256, 3, 3)]
    convolutions = 24 * 64 * 9 + 64 * 64 * 9 + 64 * 256 * 9 + 3 * 256 * 256 * 9
    shifts = 2 * (64 + 256 + 256)
    learned = sum(value.numel() for value in net.parameters() if value.requires_grad)
    assert learned == 24 + convolutions + shifts + 10 * 256


def test_resnet18_is_torchvision_s_but_for_the_stem() -> None:
    ours, theirs = ResNet18(), resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    # The same modules, if those of a block are called in the order in which torchvision has them.
    mine, other = ours.state_dict(), theirs.state_dict()
    assert [value.shape for value in mine.values()] == [value.shape for value in other.values()]
    theirs.load_state_dict(dict(zip(other, mine.values(), strict=True)))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", ["fast", "resnet18"])
def test_a_net_is_made_from_the_seed_and_has_its_weights_channels_last(
    name: Literal["fast", "resnet18"],
) -> None:
    config = replace(CONFIG, net=name)
    torch.manual_seed(3)
    first = create_model(config, PICTURES)
    torch.manual_seed(3)
    second = create_model(config, PICTURES)
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.ndim != 4 or one.is_contiguous(memory_format=torch.channels_last)


# Optimizer


def test_groups_of_sgd_have_their_own_step_sizes_and_decays() -> None:
    net = create_model(CONFIG, PICTURES)
    config = replace(CONFIG, lr=0.5, shift_lr=8.0, weight_decay=0.01, momentum=0.85)
    optimizer = create_optimizer(config, net)
    others, shifts, whitening = optimizer.param_groups
    names = {id(value): name for name, value in net.named_parameters() if value.requires_grad}
    found = [[names.pop(id(value)) for value in group["params"]] for group in (shifts, whitening)]
    assert sorted(found[0]) == [f"groups.{i}.norm{j}.bias" for i in range(3) for j in (1, 2)]
    assert found[1] == ["whitening.bias"]
    assert {id(value) for value in others["params"]} == set(names)
    for group in (others, whitening):
        assert (group["lr"], group["weight_decay"]) == (0.5, 0.01)
    assert (shifts["lr"], shifts["weight_decay"]) == (4.0, 0.00125)
    for group in optimizer.param_groups:
        assert group["momentum"] == 0.85
        assert group["nesterov"]


def test_without_shift_lr_the_groups_make_the_steps_of_one_plain_sgd() -> None:
    config = replace(CONFIG, net="resnet18", shift_lr=1.0, lr=0.1, weight_decay=0.01)
    ours, theirs = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    )
    theirs.load_state_dict(ours.state_dict())
    optimizers = [
        create_optimizer(config, ours),
        SGD(theirs.parameters(), 0.1, momentum=config.momentum, weight_decay=0.01, nesterov=True),
    ]
    x = torch.randn(4, 3, 8, 8)
    for _ in range(3):
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_step_sizes_rise_and_fall_in_straight_lines_and_whitening_stops_early() -> None:
    config = replace(
        CONFIG, lr=2.0, shift_lr=4.0, lr_start=0.2, lr_peak=0.25, lr_end=0.1, epochs=5,
        whitening_epochs=3,
    )  # fmt: skip
    steps = 20  # four an epoch
    optimizer = create_optimizer(config, create_model(config, PICTURES))
    schedule = create_schedule(config, optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = np.interp(np.arange(steps), [0, 5, 20], [0.4, 2.0, 0.2])
    others, shifts, whitening = np.array(seen).T
    np.testing.assert_allclose(others, expected)
    np.testing.assert_allclose(shifts, 4 * expected)
    np.testing.assert_allclose(whitening, np.where(np.arange(steps) < 12, expected, 0))


def test_lookahead_is_a_running_mean_that_weights_return_to() -> None:
    period, steps = 3, 10
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    lookahead = Lookahead(net, period, steps)
    x = torch.randn(16, 2)
    plain = {name: value.clone() for name, value in net.state_dict().items()}
    slow = {name: value.clone() for name, value in plain.items()}

    def step(trainer: Engine, _: int) -> None:
        net(x)  # moves the statistics
        with torch.no_grad():
            for value in net.parameters():
                value.add_(trainer.state.iteration)
        for name, value in net.state_dict().items():
            plain[name] = value.clone()

    def expected(trainer: Engine) -> None:
        now = trainer.state.iteration
        for name, value in plain.items():
            if not value.is_floating_point():
                continue
            if now == steps:
                plain[name] = slow[name]
            elif now % period == 0:
                decay = 0.95**5 * (now / steps) ** 3
                slow[name] = decay * slow[name] + (1 - decay) * value
                plain[name] = slow[name]

    def compare(_: Engine) -> None:
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, plain[name])

    trainer = Engine(step)
    for handler in (lookahead, expected, compare):
        trainer.add_event_handler(Events.ITERATION_COMPLETED, handler)
    trainer.run(range(steps), max_epochs=1)

    other = Lookahead(net, period, steps)
    other.load_state_dict(lookahead.state_dict())
    for one, two in zip(other.state_dict()["mean"], lookahead.state_dict()["mean"], strict=True):
        assert torch.equal(one, two)


# Measuring


class Corner(nn.Module):
    """Scores that only tell where in the image a value was."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 4, 5]


def test_views_are_averaged_as_the_record_does() -> None:
    x, net = torch.randn(3, 3, 32, 32), Corner()
    assert torch.equal(average_views(net, x, "one"), x[:, :, 4, 5])
    mirrored = (x[:, :, 4, 5] + x[:, :, 4, 26]) / 2
    torch.testing.assert_close(average_views(net, x, "flip"), mirrored)
    # Moved down and right by a pixel, and up and left; each also mirrored.
    moved = (x[:, :, 3, 4] + x[:, :, 3, 25] + x[:, :, 5, 6] + x[:, :, 5, 27]) / 4
    torch.testing.assert_close(average_views(net, x, "flip and shift"), (mirrored + moved) / 2)


def evaluation(rank: int = 0, size: int = 1) -> WorstMistakes:
    """Come across 120 images, of which this process has each ``size``-th, in ragged batches."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(120, 10, generator=generator) * 3
    labels = torch.randint(10, (120,), generator=generator)
    images = torch.arange(120, dtype=torch.uint8).view(-1, 1, 1, 1).expand(120, 3, 32, 32)
    evaluator = Engine(lambda _, batch: (logits[batch[0][:, 0, 0, 0].long()], batch[1]))
    mistakes = WorstMistakes(evaluator)
    mine = torch.arange(rank, 120, size)
    batches = [(images[of], labels[of]) for of in torch.tensor_split(mine, [len(mine) - 7])]
    for _ in range(2):  # each run begins anew
        evaluator.run(batches)
    return mistakes


def test_the_worst_mistakes_are_those_whose_label_was_least_probable() -> None:
    worst = evaluation().compute()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(120, 10, generator=generator) * 3
    labels = torch.randint(10, (120,), generator=generator)
    probabilities = torch.softmax(logits, dim=1)
    of_label = probabilities[torch.arange(120), labels]
    wrong = [place for place in range(120) if logits[place].argmax() != labels[place]]
    expected = sorted(wrong, key=lambda place: of_label[place])[:KEPT]
    assert worst.images[:, 0, 0, 0].tolist() == expected
    assert worst.labels.tolist() == labels[expected].tolist()
    torch.testing.assert_close(worst.log_probabilities.exp(), probabilities[expected])


def _compare_with_one_process(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found = evaluation(rank, 2).compute()
    dist.destroy_process_group()
    for one, two in zip(found, evaluation().compute(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_two_processes_find_the_same_worst_mistakes(tmp_path: Path) -> None:
    assert in_processes(2, _compare_with_one_process, f"file://{tmp_path / 'store'}") == [0, 0]


def test_mistakes_are_drawn_also_where_there_is_none_or_one() -> None:
    worst = evaluation().compute()
    for count, rows in ((0, 1), (1, 1), (9, 2), (40, 5)):
        figure = draw_mistakes(type(worst)(*(tensor[:count] for tensor in worst)))
        assert len(figure.axes[0].texts) == count
        assert figure.get_figheight() == pytest.approx(1.7 * rows)
    text = figure.axes[0].texts[0].get_text()
    assert "label: " in text
    assert "%" in text


def test_seeds_are_summarised_by_mean_and_sample_deviation(tmp_path: Path) -> None:
    accuracies = [0.94, 0.95, 0.93, 0.945, 0.935]
    for profile, accuracy in zip(seeds.PROFILES, accuracies, strict=True):
        with pytest.raises(recipe.RecipeError, match=f"{profile}/metrics.json: no such file"):
            seeds.summarize(tmp_path)
        (tmp_path / profile).mkdir()
        (tmp_path / profile / "metrics.json").write_text(json.dumps({"accuracy": accuracy}))
    summary = seeds.summarize(tmp_path)["accuracy"]
    assert summary["mean"] == pytest.approx(np.mean(accuracies))
    assert summary["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert (summary["min"], summary["max"]) == (0.93, 0.95)
