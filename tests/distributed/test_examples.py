"""The examples in the documentation are run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import cookfire.distributed

MODULES = [
    name
    for _, name, _ in pkgutil.iter_modules(cookfire.distributed.__path__)
    if name != "_xla"  # needs torch_xla, and has none
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(f"cookfire.distributed.{name}")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    tried = [
        doctest.testmod(importlib.import_module(f"cookfire.distributed.{name}")).attempted
        for name in MODULES
    ]
    assert sum(tried) > 20
