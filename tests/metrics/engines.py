"""Engines and data to attach metrics to."""

import torch

from cookfire.engine import Engine
from cookfire.metrics import Metric, MetricState


def echo():
    """Return an engine whose output is the batch."""
    return Engine(lambda _, batch: batch)


def batches(number=4, size=30, classes=3, seed=0):
    """Return batches of scores and class indices."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.rand(size, classes, generator=generator),
            torch.randint(0, classes, (size,), generator=generator),
        )
        for _ in range(number)
    ]


def accuracy_of(data):
    """Return the accuracy over such batches."""
    return torch.cat([scores.argmax(1) == y for scores, y in data]).double().mean().item()


class Total(Metric):
    """The sum of the outputs."""

    required_output_keys = None
    total = MetricState(torch.float64)

    def update(self, output):
        """Add a number."""
        self.accumulate(total=output)

    def compute(self):
        """Return the sum."""
        return self.total
