import doctest
import importlib
import pkgutil

import pytest
import torch

import cookfire.metrics
from cookfire.engine import Engine, Events
from cookfire.metrics import metric

MODULES = ["cookfire.metrics"] + [
    module.name for module in pkgutil.walk_packages(cookfire.metrics.__path__, "cookfire.metrics.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_print_what_they_say(name):
    names = {
        **{name: getattr(cookfire.metrics, name) for name in cookfire.metrics.__all__},
        **{name: getattr(metric, name) for name in metric.__all__},
        "torch": torch,
        "Events": Events,
        "evaluator": Engine(lambda engine, batch: batch),
    }
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs=names)
    assert result.failed == 0


def test_public_names_are_listed_and_exist():
    assert sorted(cookfire.metrics.__all__) == sorted(set(cookfire.metrics.__all__))
    for name in cookfire.metrics.__all__:
        assert getattr(cookfire.metrics, name) is not None
    for name in metric.__all__:
        assert getattr(metric, name) is not None


def test_the_introductions_accuracy_and_error():
    from cookfire.metrics import Accuracy

    accuracy = Accuracy()
    error = 100.0 * (1.0 - accuracy)
    first = (
        torch.tensor([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]),
        torch.tensor([1, 0, 1, 1]),
    )
    second = (
        torch.tensor([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]),
        torch.tensor([0, 1, 1, 0]),
    )
    accuracy.update(first)
    assert (repr(accuracy.compute()), repr(error.compute())) == ("0.75", "25.0")
    accuracy.update(second)
    assert (repr(accuracy.compute()), repr(error.compute())) == ("0.625", "37.5")
