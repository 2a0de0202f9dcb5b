"""How every public metric behaves: copied, without data, over many updates."""

import copy
import pickle
import re
from importlib import import_module

import pytest
import torch

import cookfire.metrics as m
from cookfire.engine.exceptions import NotComputableError
from tests.metrics.test_all import ALWAYS_COMPUTABLE, CASES, WHOLE_HISTORY, find


def make(path):
    """A metric, two batches."""
    torch.manual_seed(0)
    case = CASES[path]
    return case.make(), [case.batch(), case.batch()]


def same(left, right):
    """Whether two values are equal, tensors and what is not a number among them."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, str):
        return left == right
    left, right = torch.as_tensor(left), torch.as_tensor(right)
    return left.dtype == right.dtype and torch.allclose(left, right, 1e-9, 1e-12, equal_nan=True)


@pytest.mark.parametrize("path", CASES)
def test_without_updates_there_is_no_value(path):
    metric, batches = make(path)
    if path in ALWAYS_COMPUTABLE:
        return
    with pytest.raises(NotComputableError, match=r"\w+ can't be computed before it saw"):
        metric.compute()
    metric.update(batches[0])
    metric.compute()
    metric.reset()
    with pytest.raises(NotComputableError):
        metric.compute()


@pytest.mark.parametrize("path", CASES)
def test_copies_and_pickles_go_on_by_themselves(path):
    metric, (first, second) = make(path)
    metric.update(first)
    before = metric.compute()
    copies = [copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))]
    metric.update(second)
    for other in copies:
        assert path in ALWAYS_COMPUTABLE or same(other.compute(), before)
        other.update(second)
        assert path in ALWAYS_COMPUTABLE or same(other.compute(), metric.compute())


def nothing_of(batch):
    """A batch of no examples."""
    if isinstance(batch, tuple):
        return tuple(map(nothing_of, batch))
    return 0 if isinstance(batch, int) else batch[:0]


# They average values, of which an update is one.
OF_VALUES = {"RunningAverage", "ExternalMetric"}


@pytest.mark.parametrize("path", [path for path in CASES if path not in OF_VALUES])
def test_a_batch_of_no_examples_changes_nothing(path):
    metric, (first, second) = make(path)
    nothing = nothing_of(first)
    metric.update(nothing)
    if path not in ALWAYS_COMPUTABLE:
        with pytest.raises(NotComputableError):
            metric.compute()
    expected, _ = make(path)
    for batch in (first, nothing, second):
        metric.update(batch)
    for batch in (first, second):
        expected.update(batch)
    assert path in ALWAYS_COMPUTABLE or same(metric.compute(), expected.compute())


def what_is_said(metric):
    """Its docstring, those of the classes that it refers to, and that of the submodule it is of.

    All but the lines about the device, which speak of what is kept in any case.
    """
    package = metric.__module__.rpartition(".")[0]
    docstring = metric.__doc__
    referred = re.findall(r":class:`[\w.~]*?(\w+)`", docstring)
    docstrings = [docstring, *(getattr(m, name).__doc__ for name in referred if hasattr(m, name))]
    if package != "cookfire.metrics":
        docstrings.append(import_module(package).__doc__)
    return re.sub(r"device: .*", "", "\n".join(docstrings))


@pytest.mark.parametrize("path", CASES)
def test_memory_grows_with_updates_only_where_the_docstring_says_so(path):
    metric, batches = make(path)
    sizes = []
    for number in range(40):
        metric.update(batches[number % 2])
        if number in (3, 39):
            sizes.append(len(pickle.dumps(metric)))
    # The digits of counts may be more.
    grown = sizes[1] > sizes[0] + 100
    assert grown == (path in WHOLE_HISTORY)
    if grown:
        assert re.search(r"\b(kept|keeps?|held|holds?)\b", what_is_said(find(path)))


@pytest.mark.parametrize("path", CASES)
def test_counts_and_sums_stay_exact_beyond_what_float32_counts(path):
    metric, (first, _) = make(path)
    metric.update(first)
    for part in set(metric._family()):
        for name, state in part._states.items():
            value = part._store.local.values[name]
            if state.reduction != "sum" or value is None:
                continue
            assert state.dtype in (torch.int64, torch.float64)
            held = state.to_tensor(value, part)
            part.accumulate(**{name: torch.full_like(held, 2**24, dtype=torch.int64)})
            for _ in range(3):
                part.accumulate(**{name: torch.ones_like(held, dtype=torch.int64)})
            now = state.to_tensor(part._store.local.values[name], part)
            torch.testing.assert_close(now - 2**24, held + 3, rtol=0, atol=1e-7, msg=name)


def with_graph(batch):
    """The same batch, hanging on a graph where it can."""
    if isinstance(batch, tuple):
        return tuple(map(with_graph, batch))
    if isinstance(batch, torch.Tensor) and batch.is_floating_point():
        return batch.requires_grad_().clone()
    return batch


def tensors_in(value):
    """The tensors in a state's value: one, several in a list, or the pieces of a sum."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    slots = getattr(type(value), "__slots__", ()) or getattr(value, "__dict__", ())
    return [tensor for name in slots for tensor in tensors_in(getattr(value, name))]


@pytest.mark.parametrize("path", CASES)
def test_no_graph_is_kept(path):
    metric, batches = make(path)
    expected, _ = make(path)
    for batch in batches:
        metric.update(with_graph(batch))
        expected.update(batch)
    for part in set(metric._family()):
        for value in part._store.local.values.values():
            for tensor in tensors_in(value):
                assert not tensor.requires_grad
    assert path in ALWAYS_COMPUTABLE or same(metric.compute(), expected.compute())


def test_no_graph_is_kept_of_whole_images_either():
    scores = torch.rand(1, 3, 80, 80, requires_grad=True)
    target = torch.randint(0, 3, (1, 80, 80))
    for metric in (m.Accuracy(), m.ConfusionMatrix(3)):
        metric.update((scores * 2, target))
        metric.compute()
