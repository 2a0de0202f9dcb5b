"""Metrics are made with the arguments of pytorch-ignite, in their order."""

from __future__ import annotations

import importlib
import inspect

import pytest

ROOTS = ("ignite", "cookfire")
MODULES = ("", ".clustering", ".gan", ".regression")


def metrics():
    for module in MODULES:
        theirs, ours = (importlib.import_module(f"{root}.metrics{module}") for root in ROOTS)
        for name in ours.__all__:
            if inspect.isclass(getattr(theirs, name, None)):
                yield pytest.param(getattr(theirs, name), getattr(ours, name), id=name)


@pytest.mark.parametrize(("theirs", "ours"), list(metrics()))
def test_arguments_are_those_of_ignite(theirs, ours):
    expected = list(inspect.signature(theirs).parameters.values())
    found = list(inspect.signature(ours).parameters.values())
    assert [one.name for one in found[: len(expected)]] == [one.name for one in expected]
    assert all(
        one.kind is one.KEYWORD_ONLY or one.default is not one.empty
        for one in found[len(expected) :]
    )
