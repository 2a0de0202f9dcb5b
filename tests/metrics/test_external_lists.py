"""Lists of torchmetrics over ranks of which some have no data."""

from __future__ import annotations

import pytest
import torch
import torchmetrics

import cookfire.distributed as idist
from cookfire.metrics import ExternalMetric


class OneByOne(torchmetrics.Metric):
    """Its list is gathered without being joined."""

    def __init__(self):
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx=None)

    def update(self, rows):
        self.rows.append(rows)

    def compute(self):
        return self.rows[0].sum()


def of_lists():
    """Metrics of torchmetrics whose lists have rows of several dtypes and dimensions."""
    return {
        "cat": torchmetrics.CatMetric(),
        "auroc": torchmetrics.classification.MulticlassAUROC(3),
        "spearman": torchmetrics.SpearmanCorrCoef(),
    }


def arguments(name, generator):
    if name == "auroc":
        y = torch.randint(0, 3, (9,), generator=generator)
        return torch.rand(9, 3, generator=generator).softmax(1), y
    if name == "cat":
        return (torch.rand(9, generator=generator),)
    return torch.rand(9, generator=generator), torch.rand(9, generator=generator)


def lists_of_one_rank():
    values = {}
    for name, theirs in of_lists().items():
        metric, generator = ExternalMetric(theirs), torch.Generator().manual_seed(0)
        for _ in range(2):
            batch = arguments(name, generator)
            if idist.get_rank() == 1:
                metric.update(batch)
        values[name] = metric.compute()
        assert torch.equal(torch.as_tensor(metric.compute()), torch.as_tensor(values[name]))
    one_by_one = ExternalMetric(OneByOne())
    if idist.get_rank() == 1:
        one_by_one.update(torch.zeros(2))
    with pytest.raises(ValueError, match="gathers its list 'rows' element by element, .* rank 0 "):
        one_by_one.compute()
    return values


@pytest.mark.filterwarnings("ignore:Metric .* will save all:UserWarning")
def test_lists_of_torchmetrics_need_no_data_on_some_rank(processes):
    results = processes(2, lists_of_one_rank)
    for name, theirs in of_lists().items():
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            theirs.update(*arguments(name, generator))
        expected = theirs.compute()
        for values in results:
            torch.testing.assert_close(torch.as_tensor(values[name]), expected)
