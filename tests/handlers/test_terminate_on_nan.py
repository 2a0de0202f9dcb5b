"""Ending a training whose numbers are no longer finite."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

from cookfire.engine import Engine, Events
from cookfire.handlers import TerminateOnNan
from tests.handlers.helpers import engine_at
from tests.handlers.ranks import look_at_uneven_data, meet_nan

INF, NAN = math.inf, math.nan
Pair = namedtuple("Pair", "first second")


def stops_at(output: Any, **settings: Any) -> int:
    trainer = Engine(lambda *_: output)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(**settings))
    return trainer.run([0] * 3).iteration


FINITE: list[Any] = [
    1.0, 1e100, 5, 10**400, True, None, "nan", 1j, [], {}, numpy.float64(1e300), torch.tensor(3),
    torch.tensor([True]), torch.zeros(0), numpy.array(["nan"]), torch.full((4,), 3e38),
    torch.tensor(6e4, dtype=torch.float16), [1.0, {"a": (torch.zeros(2), "x")}],
]  # fmt: skip

NOT_FINITE: list[Any] = [
    NAN, INF, -INF, complex(0, NAN), numpy.float32(NAN), numpy.array([1.0, INF]),
    torch.tensor(NAN), torch.tensor([1.0, INF]), torch.tensor([[1.0, -INF]], requires_grad=True),
    torch.tensor(complex(1, NAN)), torch.tensor(NAN, dtype=torch.bfloat16),
    [1.0, {"a": (torch.zeros(2), NAN)}], Pair(1.0, torch.tensor(INF)),
]  # fmt: skip


@pytest.mark.parametrize("output", FINITE, ids=repr)
def test_what_is_finite_goes_on(output: Any) -> None:
    assert stops_at(output) == 3


@pytest.mark.parametrize("output", NOT_FINITE, ids=repr)
def test_what_is_not_finite_stops_the_run_at_once(output: Any) -> None:
    assert stops_at(output) == 1


def test_the_transform_says_what_to_look_at() -> None:
    assert stops_at({"loss": NAN, "x": 1.0}, output_transform=lambda output: output["x"]) == 3


def test_the_warning_names_the_value_and_the_iteration(caplog: pytest.LogCaptureFixture) -> None:
    losses = iter([1.0, INF])
    trainer = Engine(lambda *_: next(losses))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan())
    trainer.run([0] * 5)
    assert "the output is not finite: inf, noticed at iteration 2 (epoch 1)" in caplog.text
    caplog.clear()
    assert stops_at(torch.full((2, 3), NAN)) == 1
    assert "an element of shape (2, 3), noticed at iteration 1" in caplog.text


class OnDevice(TerminateOnNan):
    """Takes everything for a value on an accelerator."""

    def __call__(self, engine: Engine) -> None:
        self._fold(engine.state.output)
        if self._is_due(engine):
            self._look(engine)


@pytest.mark.parametrize(
    ("bad_at", "every", "since", "noticed_at"),
    [
        (1, 10, 0, 10), (10, 10, 0, 10), (11, 10, 10, 20), (24, 10, 20, 25), (26, 10, 25, 30),
        (3, 1, 2, 3), (49, 100, 25, 50),
    ],
)  # fmt: skip
def test_on_a_device_it_looks_every_so_often_and_at_the_end_of_an_epoch(
    bad_at: int, every: int, since: int, noticed_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Engine(lambda engine, _: torch.tensor(NAN if engine.state.iteration == bad_at else 1))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, OnDevice(every=every))
    assert trainer.run([0] * 25, max_epochs=2).iteration == noticed_at
    assert f"a value after iteration {since}, noticed at iteration {noticed_at} " in caplog.text


def test_a_flag_that_was_not_read_yet_survives_a_checkpoint() -> None:
    handler = OnDevice()
    handler._fold(torch.tensor(NAN))
    handler._fold(torch.tensor([1, 2]))
    saved = handler.state_dict()
    assert saved == {"looked_at": 0, "finite": False}
    other = TerminateOnNan()
    other.load_state_dict(saved)
    trainer = Engine(lambda *_: 1.0)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, other)
    assert trainer.run([0] * 25).iteration == 10


@pytest.mark.parametrize("finite", [True, False])
def test_the_flag_is_exact(finite: bool) -> None:
    for output in FINITE if finite else NOT_FINITE:
        if not isinstance(output, torch.Tensor):
            continue
        for first in (True, False):  # it does not matter what else was folded
            handler = OnDevice()
            for value in [output, *FINITE[-5:-1]][:: 1 if first else -1]:
                if isinstance(value, torch.Tensor):
                    handler._fold(value)
            assert handler.state_dict()["finite"] is finite


def test_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every must be at least 1 iteration, got 0"):
        TerminateOnNan(every=0)


def test_it_does_not_ask_the_device_at_each_step() -> None:
    class Watched(torch.Tensor):
        """A tensor that claims to be elsewhere, and tells when it is read."""

        reads = 0

        @property
        def is_cpu(self) -> bool:
            return False

        def __bool__(self) -> bool:
            Watched.reads += 1
            return super().__bool__()

    handler = TerminateOnNan(every=5)
    engine = engine_at()
    engine.state.output = torch.ones(3).as_subclass(Watched)
    for iteration in range(1, 13):
        engine.state.iteration = iteration
        handler(engine)
    assert Watched.reads == 2


def test_all_ranks_stop_at_the_same_iteration(processes: Callable[..., list[Any]]) -> None:
    assert processes(2, meet_nan) == [(10, 4), (10, 4)]


def test_ranks_of_which_one_has_a_batch_less_are_refused(
    processes: Callable[..., list[Any]],
) -> None:
    for said in processes(2, look_at_uneven_data):
        assert said.startswith("TerminateOnNan: expected equally many batches in all processes")
        assert "given 21 items in batches of 2 for 2 processes" in said
