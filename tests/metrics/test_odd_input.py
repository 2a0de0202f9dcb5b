"""Whatever a metric is given, there is a value, or one line that says what it takes."""

from __future__ import annotations

import random
import traceback

import pytest
import torch

from cookfire.engine.exceptions import NotComputableError
from tests.metrics.test_all import CASES

ODD = [
    torch.rand(4, 3),
    torch.rand(4),
    torch.rand(4, 1),
    torch.rand(4, 3, 2, 2),
    torch.tensor([0, 1, 2, 1]),
    torch.tensor([0, 1, 1, 0]),
    torch.tensor([True, False, True, True]),
    torch.empty(0),
    torch.empty(0, 3),
    torch.tensor(1.0),
    torch.tensor([torch.nan, 1, 2, 0]),
    torch.rand(4, 3).half(),
    torch.full((4, 3), torch.nan),
    torch.tensor([-1, 5, 2**40, 0]),
    torch.rand(4, 3) > 0.5,
    torch.zeros(4, 0),
    torch.tensor([0, 1, 2, 1], dtype=torch.uint8),
    torch.rand(4, 3).to(torch.complex64),
    torch.rand(4, 3).double(),
    torch.randint(0, 3, (4, 2, 2)),
    None,
    3.0,
    "text",
]
TAKES_ANYTHING = {"EpochMetric", "Loss", "ExternalMetric", "MetricsLambda"}
"""What they take is a function's of the user."""
TAKES_NO_PAIR = {"Average", "GeometricAverage", "VariableAccumulation", "RunningAverage"}
TAKES_TEXT_OR_BOXES = {"Bleu", "Rouge", "RougeN", "RougeL", "CharacterErrorRate"}


def is_of_pairs(name):
    left_out = TAKES_ANYTHING | TAKES_NO_PAIR | TAKES_TEXT_OR_BOXES
    return name not in left_out and "Subgroup" not in name and "ObjectDetection" not in name


def error_of(metric, pair):
    """Return the ValueError or TypeError that an update or its value raises."""
    try:
        metric.update(pair)
        metric.compute()
    except NotComputableError:
        return None
    except (ValueError, TypeError) as error:
        return error
    return None


@pytest.mark.parametrize("name", [name for name in CASES if is_of_pairs(name)])
@pytest.mark.filterwarnings("ignore")
def test_odd_input_is_a_value_or_an_error_of_ours(name):
    for pair in random.Random(name).sample([(a, b) for a in ODD for b in ODD], 80):
        error = error_of(CASES[name].make(), pair)
        if error is not None:
            assert "cookfire" in traceback.extract_tb(error.__traceback__)[-1].filename, error
            assert "\n" not in str(error)
