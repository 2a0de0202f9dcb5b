"""Nets, losses, pools, features, the schedule: each by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cookfire.handlers import recipe

from . import losses
from .conftest import CONFIG
from .features import ColorsAndEdges, create_extractor
from .model import Discriminator, Discriminators, Generator, Generators, load_generator
from .pool import PicturePool

CPU = torch.device("cpu")


def pictures(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=chance) * 2 - 1


def count_weights(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def assert_close(one: torch.Tensor | None, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


# Nets


def test_the_nets_are_the_paper_s() -> None:
    # Of the authors' 11,378,179 and 2,764,737 weights, less the biases that a normalisation takes
    # away: 64 + 128 + 256 + 18 * 256 + 128 + 64, and 128 + 256 + 512.
    assert count_weights(Generator(64, 9)) == 11_378_179 - 5_248
    assert count_weights(Discriminator(64, 3)) == 2_764_737 - 896


def test_a_discriminator_of_three_layers_judges_patches_of_70_pixels() -> None:
    net = Discriminator(2, 3)
    for number, module in enumerate(net):
        if isinstance(module, nn.InstanceNorm2d):
            net[number] = nn.Identity()  # which looks at the whole picture
    picture = pictures(1, 256).requires_grad_()
    looks = net(picture)
    assert looks.shape == (1, 1, 30, 30)
    torch.autograd.backward(looks[0, 0, 15, 15])
    assert picture.grad is not None
    rows, columns = picture.grad[0].abs().sum(0).nonzero().unbind(1)
    assert [int(of.max() - of.min()) + 1 for of in (rows, columns)] == [70, 70]


def test_generators_make_each_picture_by_itself_with_or_without_identity() -> None:
    nets = Generators(CONFIG)
    a, b = pictures(2), pictures(2, seed=1)
    made = nets(a, b, identity=True)
    assert (made.real_a is a, made.real_b is b) == (True, True)
    assert_close(made.fake_b, nets.a_to_b(a))
    assert_close(made.fake_a, nets.b_to_a(b))
    assert_close(made.cycled_a, nets.b_to_a(nets.a_to_b(a)))
    assert_close(made.cycled_b, nets.a_to_b(nets.b_to_a(b)))
    assert_close(made.same_a, nets.b_to_a(a))
    assert_close(made.same_b, nets.a_to_b(b))
    assert_close(made.fake_b[:1], nets.a_to_b(a[:1]))
    assert nets(a, b).same_a is None


def test_a_generator_is_found_again_by_its_weights_alone() -> None:
    net = Generator(4, 2)
    again = load_generator(net.state_dict())
    assert torch.equal(again(pictures(1)), net(pictures(1)))
    with pytest.raises(ValueError, match="not the weights of a generator"):
        load_generator(Discriminator(4, 1).state_dict())


# Losses


def test_losses_are_those_of_the_paper() -> None:
    made = Generators(CONFIG)(pictures(2), pictures(2, seed=1), identity=True)
    d = Discriminators(CONFIG)
    looks_a, looks_b = d(made.fake_a, made.fake_b)
    total, parts = losses.of_generators(CONFIG, made, looks_a, looks_b)
    ones = torch.ones_like(looks_a)
    cycle = F.l1_loss(made.cycled_a, made.real_a) + F.l1_loss(made.cycled_b, made.real_b)
    identity = F.l1_loss(made.same_a, made.real_a) + F.l1_loss(made.same_b, made.real_b)
    expected = F.mse_loss(looks_a, ones) + F.mse_loss(looks_b, ones) + 10 * cycle + 5 * identity
    torch.testing.assert_close(total, expected)
    assert parts["generators"] == total.detach()
    assert not any(part.requires_grad for part in parts.values())
    looks = d(torch.cat([made.real_a, made.fake_a]), torch.cat([made.real_b, made.fake_b]))
    total, more = losses.of_discriminators(*looks)
    real, fake = d.of_b(made.real_b), d.of_b(made.fake_b)
    torch.testing.assert_close(more["discriminator_b"], ((real - 1) ** 2 + fake**2).mean() / 2)
    torch.testing.assert_close(total, more["discriminator_a"] + more["discriminator_b"])
    assert [*parts, *more] == losses.names(CONFIG)


# Pools


def numbered(first: int, count: int = 2) -> torch.Tensor:
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1)


def test_a_pool_hands_out_what_comes_until_it_is_full_and_then_older_ones_half_of_the_time() -> (
    None
):
    pool = PicturePool(10, seed=0)
    older = 0
    seen: set[int] = set()
    for step in range(1, 501):
        coming = numbered(2 * step)
        handed_out = pool.exchange(coming, step)
        for new, out in zip(coming.flatten().tolist(), handed_out.flatten().tolist(), strict=True):
            if step <= 5:
                assert out == new
            if out != new:
                older += 1
                assert out < new
                assert out not in seen  # a place is filled anew: nothing comes out twice
                seen.add(out)
    assert 440 < older < 550


def test_what_a_pool_hands_out_is_a_function_of_seed_step_and_what_came() -> None:
    one, two, other = PicturePool(4, seed=0), PicturePool(4, seed=0), PicturePool(4, seed=1)
    outs = []
    for step in range(1, 20):
        torch.rand(step)  # the global random state has no say
        outs.append([pool.exchange(numbered(2 * step), step) for pool in (one, two, other)])
    assert all(torch.equal(first, second) for first, second, _ in outs)
    assert not all(torch.equal(first, third) for first, _, third in outs)


def test_a_pool_goes_on_from_its_state() -> None:
    pool = PicturePool(4, seed=0)
    assert pool.state_dict()["pictures"] is None
    for step in range(1, 8):
        pool.exchange(numbered(2 * step), step)
    again = PicturePool(4, seed=0)
    again.load_state_dict(pool.state_dict())
    for step in range(8, 16):
        coming = numbered(2 * step)
        assert torch.equal(again.exchange(coming, step), pool.exchange(coming, step))


def test_a_pool_keeps_nothing_of_what_it_handed_out_or_was_given() -> None:
    pool = PicturePool(2, seed=0)
    coming = numbered(1)
    pool.exchange(coming, 1).zero_()
    coming.zero_()
    assert pool.state_dict()["pictures"].flatten().tolist() == [1, 2]


def test_a_pool_of_no_size_lets_pictures_pass() -> None:
    coming = numbered(1)
    assert PicturePool(0, seed=0).exchange(coming, 1) is coming


# Features


def test_without_inception_s_weights_the_distance_has_another_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert create_extractor("auto", CPU).name == "colors_and_edges"
    with pytest.raises(recipe.RecipeError, match="features: there are no weights of Inception"):
        create_extractor("inception_v3", CPU)


def test_with_inception_s_weights_the_distance_is_called_fid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torchvision.models import inception_v3

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    net = inception_v3(weights=None, init_weights=False)
    torch.save(net.state_dict(), folder / "inception_v3_google-0cc3c7bd.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    extractor = create_extractor("auto", CPU)
    assert (extractor.name, extractor.num_features) == ("fid", 2048)
    assert extractor.net(pictures(1)).shape == (1, 2048)


def test_colors_and_edges_are_means_deviations_and_differences_of_neighbours() -> None:
    net = ColorsAndEdges()
    given = pictures(5, size=32)
    features = net(given)
    assert features.shape == (5, net.num_features)
    torch.testing.assert_close(features[:, :3], given.mean((2, 3)))
    torch.testing.assert_close(features[:, 3:6], given.std((2, 3), correction=0))
    # Lines across a picture are edges down it: 1 from one to the next, none at half the size.
    lines = torch.zeros(1, 3, 32, 32)
    lines[:, :, ::2] = 1
    across, down = net(lines)[0, 6:].view(3, 2, 3).unbind(1)
    assert across.abs().max() == 0
    assert down[:, 0].tolist() == pytest.approx([1, 0, 0])
    assert torch.allclose(net(given.flip(-1)), features, atol=1e-6)
