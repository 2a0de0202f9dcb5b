"""What is logged, flattened to plain numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cookfire.handlers._log_values import flatten
from tests.handlers.recorder import Recorder


def test_parameters_are_flattened_by_dots():
    logger = Recorder()
    logger.log_params({"lr": 0.1, "environment": {"OMP_NUM_THREADS": 2}, "empty": {}})
    assert logger.params == {"lr": 0.1, "environment.OMP_NUM_THREADS": 2, "empty": {}}


numbers = st.one_of(st.integers(), st.floats(), st.booleans())


@given(st.dictionaries(st.text(), st.one_of(numbers, st.lists(numbers))))
def test_any_numbers_are_flattened_to_pythons_own(values):
    leaves = dict(flatten(values))
    for key, value in values.items():
        items = [((key, str(i)), v) for i, v in enumerate(value)] if isinstance(value, list) else []
        for name, item in items or ([] if isinstance(value, list) else [((key,), value)]):
            assert leaves[name] == item or math.isnan(item)
            assert type(leaves[name]) in (int, float)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor(0.5), [((), 0.5)]),
        (torch.tensor(3), [((), 3)]),
        (torch.tensor(True), [((), 1)]),
        (torch.tensor([1, 2]), [(("0",), 1), (("1",), 2)]),
        (torch.tensor([]), []),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), [((), 0.5)]),
        (np.float32(0.5), [((), 0.5)]),
        (np.int64(3), [((), 3)]),
        (np.array([0.5]), [(("0",), 0.5)]),
        ("text", [((), "text")]),
        ((1, {"a": 2}), [(("0",), 1), (("1", "a"), 2)]),
        (None, [((), None)]),
    ],
)
def test_tensors_and_arrays_are_flattened_to_pythons_numbers(value, expected):
    found = list(flatten(value))
    assert found == expected
    assert [type(leaf) for _, leaf in found] == [type(leaf) for _, leaf in expected]
