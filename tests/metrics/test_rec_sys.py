"""Metrics of recommendations against ignite and scikit-learn."""

import ignite.metrics as ignite
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import NDCG, HitRate

few = settings(max_examples=40)


def fed(metric, *batches):
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def make(users, items, seed, *, ties=False):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(2):
        scores = torch.rand(users, items, generator=generator)
        relevance = torch.randint(0, 4, (users, items), generator=generator)
        relevance *= torch.randint(0, 2, (users, items), generator=generator)
        relevance[0, 0] = 3
        batches.append((scores.mul(3).round() if ties else scores, relevance))
    return batches


users, items, seeds = st.integers(1, 5), st.integers(1, 8), st.integers(0, 999)


@given(users, items, seeds, st.data())
@few
def test_hit_rates_are_ignites(users, items, seed, data):
    ks = data.draw(st.lists(st.integers(1, items), min_size=1, max_size=4))
    batches = make(users, items, seed)
    for ignore in (True, False):
        value = fed(HitRate(ks, ignore), *batches)
        assert [type(number) for number in value] == [float] * len(ks)
        assert value == pytest.approx(fed(ignite.HitRate(ks, ignore), *batches))


@given(users, items, seeds, st.booleans(), st.data())
@few
def test_ndcgs_are_ignites_with_ties_too(users, items, seed, ties, data):
    ks = data.draw(st.lists(st.integers(1, items + 2), min_size=1, max_size=4))
    settings = {
        "ignore_zero_hits": data.draw(st.booleans()),
        "relevance_threshold": data.draw(st.sampled_from([0, 1, 1.5, 3])),
        "gain_function": data.draw(st.sampled_from(["exp_rank", "linear_rank"])),
    }
    batches = make(users, items, seed, ties=ties)
    value = fed(NDCG(ks, **settings), *batches)
    assert [type(number) for number in value] == [float] * len(ks)
    assert value == pytest.approx(fed(ignite.NDCG(ks, **settings), *batches), rel=1e-5)


@given(users, st.integers(2, 8), seeds)
@few
def test_linear_ndcg_is_scikit_learns(users, items, seed):
    batches = make(users, items, seed)
    scores, y = map(torch.cat, zip(*batches, strict=True))
    value = fed(NDCG([1, 3], ignore_zero_hits=False, gain_function="linear_rank"), *batches)
    expected = [ndcg_score(y.numpy(), scores.numpy().astype(np.float64), k=k) for k in (1, 3)]
    assert value == pytest.approx(expected)


@given(users, items, seeds, st.integers(1, 8))
@few
def test_of_equal_scores_the_first_item_comes_first(users, items, seed, k):
    batches = make(users, items, seed, ties=True)
    places = [
        torch.sort(scores, dim=1, descending=True, stable=True).indices for scores, _ in batches
    ]
    relevant = torch.cat([(y > 0).gather(1, p) for (_, y), p in zip(batches, places, strict=True)])
    expected = relevant[:, :k].any(1).double().mean().item()
    assert fed(HitRate(k, ignore_zero_hits=False), *batches) == pytest.approx([expected])


def test_scores_of_other_dtypes_layouts_and_values():
    scores = torch.tensor([[4, 2, 3], [1, 3, 2]])
    y = torch.tensor([[0, 0, 1], [1, 0, 0]])
    for variant in (
        scores,
        scores.half(),
        scores.bfloat16(),
        scores.double().t().contiguous().t(),
    ):
        for relevance in (y, y.bool(), y.float()):
            assert fed(HitRate([1, 2, 3, 9]), (variant, relevance)) == [0.0, 0.5, 1.0, 1.0]
            assert fed(NDCG(3), (variant, relevance)) == pytest.approx([(1 / np.log2(3) + 0.5) / 2])
    broken = torch.full((1, 3), torch.nan)
    assert fed(HitRate([1, 3]), (broken, y[:1])) == [0.0, 0.0]
    broken = torch.tensor([[torch.nan, 0.1, 0.2]])
    assert fed(NDCG(1), (broken, torch.tensor([[1, 0, 2]]))) == [1.0]
    assert fed(HitRate(1), (broken, torch.tensor([[1, 0, 1]]))) == [1.0]
    assert fed(HitRate([1, 3]), (broken, torch.tensor([[1, 0, 0]]))) == [0.0, 0.0]
    assert fed(HitRate(1), (torch.full((1, 3), -torch.inf), y[1:])) == [1.0]


def test_users_without_anything_relevant():
    scores, nothing = torch.rand(2, 3), torch.zeros(2, 3)
    for make_metric in (HitRate, NDCG):
        with pytest.raises(NotComputableError):
            fed(make_metric([1, 2]), (scores, nothing))
        assert fed(make_metric([1, 2], ignore_zero_hits=False), (scores, nothing)) == [0.0, 0.0]


def test_what_no_recommendation_metric_takes_is_refused():
    for make_metric in (HitRate, NDCG):
        for wrong in ([], [0], [1, -2], [1.5], True, "12"):
            with pytest.raises(ValueError, match="top_k must be one or several integers above 0"):
                make_metric(wrong)
        for shapes in (((3,), (3,)), ((2, 3), (2, 4)), ((2, 3, 1), (2, 3, 1)), ((2, 0), (2, 0))):
            with pytest.raises(ValueError, match=r"expected equal shapes \(users, items\)"):
                make_metric([1]).update(tuple(map(torch.zeros, shapes)))
    with pytest.raises(ValueError, match="gain_function must be one of exp_rank, linear_rank"):
        NDCG(1, gain_function="x")
