"""Metrics of groups of people."""

import ignite.metrics as oracle
import ignite.metrics.fairness as fair_oracle
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import cookfire.metrics as ours
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import fairness
from tests.metrics.classification import attached, few, value_of


@st.composite
def of_groups(draw):
    """Batches of scores, targets and groups."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sizes = draw(st.lists(st.integers(3, 9), min_size=1, max_size=3))
    batches = [
        (
            torch.rand(size, 3, generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for size in sizes
    ]
    batches[0][2][:2] = torch.tensor([0, 1])
    return batches


@given(of_groups())
@few
def test_groups_agree_with_ignite(batches):
    pairs = [
        (fairness.SubgroupAccuracyDifference, fair_oracle.SubgroupAccuracyDifference, ()),
        (fairness.DemographicParityDifference, fair_oracle.DemographicParityDifference, ()),
        (fairness.SubgroupDifference, fair_oracle.SubgroupDifference, ("Recall",)),
        (fairness.SubgroupMetric, fair_oracle.SubgroupMetric, ("Accuracy",)),
        (fairness.SubgroupMetric, fair_oracle.SubgroupMetric, ("Loss",)),
    ]
    for mine, theirs, base in pairs:
        arguments = [cross_entropy] if base == ("Loss",) else []
        made = [
            group(*[getattr(module, name)(*arguments) for name in base], [0, 1, 2, 9])
            for group, module in ((mine, ours), (theirs, oracle))
        ]
        value, expected = (value_of(metric, batches) for metric in made)
        assert value == pytest.approx(expected, abs=1e-6)
    rate = value_of(fairness.SelectionRate(), [batch[:2] for batch in batches])
    expected = value_of(fair_oracle.SelectionRate(), [batch[:2] for batch in batches])
    np.testing.assert_allclose(rate, expected, rtol=1e-6)


@pytest.mark.parametrize("multilabel", [False, True])
def test_groups_of_zeros_and_ones_agree_with_ignite(multilabel):
    shape = (40, 3) if multilabel else (40,)
    torch.manual_seed(0)
    batch = torch.randint(0, 2, shape), torch.randint(0, 2, shape), torch.randint(0, 2, (40,))
    for name in ("SubgroupAccuracyDifference", "DemographicParityDifference"):
        value = value_of(getattr(fairness, name)([0, 1], is_multilabel=multilabel), [batch])
        theirs = getattr(fair_oracle, name)([0, 1], is_multilabel=multilabel)
        assert value == pytest.approx(value_of(theirs, [batch]), abs=1e-6)


def test_groups_are_checked():
    batch = torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor([0, 0])
    metric = fairness.SubgroupDifference(ours.Accuracy(), [0, 1])
    with pytest.raises(NotComputableError, match="before it saw an example of a group"):
        metric.compute()
    with pytest.raises(NotComputableError, match=r"needs examples of two groups, saw only \[0\]"):
        value_of(metric, [batch])
    with pytest.raises(ValueError, match="at least one and none twice, got"):
        fairness.SubgroupMetric(ours.Accuracy(), [])
    with pytest.raises(ValueError, match=r"group_labels \(batch,\) of one batch, got"):
        metric.update((*batch[:2], torch.zeros(3)))


def test_groups_in_an_engine_keep_their_settings():
    batch = {
        "y_pred": torch.rand(8, 3),
        "y": torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]),
        "group_labels": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
    }
    base = ours.Accuracy(ignore_index=0)
    metric = fairness.SubgroupMetric(base, [0, 1])
    seen = [
        attached({"groups": metric}, [batch])["groups"] for _ in range(2)
    ]  # a copy the 2nd time
    kept = batch["y"] != 0
    for group, value in seen[0].items():
        rows = kept & (batch["group_labels"] == group)
        right = batch["y_pred"][rows].argmax(1) == batch["y"][rows]
        assert value == pytest.approx(right.double().mean())
    assert seen[0] == seen[1]
    with pytest.raises(NotComputableError):
        base.compute()  # the groups have copies
