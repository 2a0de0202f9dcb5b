"""Ending a training that no longer gets better."""

from __future__ import annotations

import math
from typing import Any

import ignite.engine
import ignite.handlers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookfire.engine import Engine, Events
from cookfire.handlers import EarlyStopping
from tests.handlers.helpers import engine_at


def trace(kind: Any, engine: Any, evaluator: Any, values: list[Any], **settings: Any) -> Any:
    """Return counter and best score after each score, and where the trainer was stopped."""
    trainer = engine(lambda *_: None)
    stopped = []
    trainer.terminate = lambda: stopped.append(len(seen))
    stopping = kind(score_function=lambda engine: engine.score, trainer=trainer, **settings)
    seen: list[Any] = []
    for value in values:
        evaluator.score = value
        stopping(evaluator)
        seen.append((stopping.counter, stopping.best_score))
    return seen, stopped


def ours(values: list[Any], **settings: Any) -> Any:
    return trace(EarlyStopping, Engine, Engine(lambda *_: None), values, **settings)


def theirs(values: list[Any], **settings: Any) -> Any:
    engine = ignite.engine.Engine
    return trace(ignite.handlers.EarlyStopping, engine, engine(lambda *_: None), values, **settings)


@settings(deadline=None)
@given(
    values=st.lists(st.integers(0, 6) | st.floats(0, 6), max_size=15),
    patience=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.3, 1.0]),
    cumulative=st.booleans(),
    threshold_mode=st.sampled_from(["abs", "rel"]),
    mode=st.sampled_from(["min", "max"]),
)
def test_it_stops_where_ignite_does(**arguments: Any) -> None:
    assert ours(**arguments) == theirs(**arguments)


def test_the_older_names_mean_the_same() -> None:
    values = [1, 2, 2.5, 2.9, 3, 1, 1]
    new = {"threshold": 0.3, "cumulative": True, "threshold_mode": "rel"}
    old = {"min_delta": 0.3, "cumulative_delta": True, "min_delta_mode": "rel"}
    assert ours(values, patience=2, **old) == ours(values, patience=2, **new)
    stopping = EarlyStopping(2, lambda engine: 0.0, engine_at(), 0.3, True, "rel")
    assert (stopping.min_delta, stopping.cumulative_delta, stopping.min_delta_mode) == (
        0.3, True, "rel",
    )  # fmt: skip
    with pytest.raises(TypeError, match="min_delta is an older name of threshold: give one"):
        ours(values, patience=2, threshold=0.2, min_delta=0.3)


def test_nan_is_no_improvement_and_nothing_is_compared_with_it() -> None:
    seen, stopped = ours([math.nan, 1.0, math.nan, 0.5, 2.0], patience=2)
    assert seen == [(1, None), (0, 1.0), (1, 1.0), (2, 1.0), (0, 2.0)]
    assert stopped == [3]


def test_a_relative_threshold_also_raises_the_bar_of_a_negative_score() -> None:
    seen, _ = ours([-10.0, -9.0, -8.0], patience=5, threshold=0.15, threshold_mode="rel")
    assert seen == [(0, -10.0), (1, -9.0), (2, -8.0)]
    seen, _ = ours(
        [-10.0, -9.0, -8.0], patience=5, threshold=0.15, threshold_mode="rel", cumulative=True
    )
    assert seen == [(0, -10.0), (1, -10.0), (0, -8.0)]


def test_scores_may_be_tensors_of_one_element() -> None:
    seen, _ = ours([torch.tensor(1.0), torch.tensor(2)], patience=5)
    assert seen == [(0, 1.0), (0, 2)]
    assert type(seen[1][1]) is int
    with pytest.raises(ValueError, match="score_function's result must be a number, got None"):
        ours([None], patience=5)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"patience": 0}, ValueError, "patience must be at least 1 evaluation, got 0"),
        ({"min_delta": -1.0}, ValueError, "min_delta must be a number of 0 or more, got -1.0"),
        ({"threshold": "a"}, ValueError, "threshold must be a number of 0 or more, got 'a'"),
        ({"threshold": -1.0}, ValueError, "threshold must be a number of 0 or more, got -1.0"),
        ({"threshold": math.nan}, ValueError, "threshold must be a number of 0 or more, got nan"),
        ({"mode": "best"}, ValueError, "mode must be 'min' or 'max', got 'best'"),
        ({"threshold_mode": "abz"}, ValueError, "threshold_mode must be 'abs' or 'rel'"),
        ({"score_function": 3}, TypeError, "score_function must be a function, got 3"),
        ({"trainer": 3}, TypeError, "trainer must be the engine to stop, got int"),
    ],
)
def test_wrong_arguments_are_refused(wrong: Any, error: type[Exception], words: str) -> None:
    given = {"patience": 1, "score_function": len, "trainer": engine_at()}
    with pytest.raises(error, match=words):
        EarlyStopping(**(given | wrong))


def pair(scores: list[float], patience: int = 2) -> tuple[Engine, Engine, EarlyStopping]:
    """Return a trainer whose evaluator measures the given scores, epoch by epoch."""
    trainer, evaluator = Engine(lambda *_: None), Engine(lambda *_: None)
    stopping = EarlyStopping(patience, lambda _: scores[trainer.state.epoch - 1], trainer)
    stopping.attach(evaluator)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    return trainer, evaluator, stopping


def test_attached_it_ends_the_run_and_begins_anew_with_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "cookfire.handlers")
    scores = [1.0, 3.0, 2.0, 2.0, 5.0]
    trainer, _, stopping = pair(scores)
    trainer.run([0], max_epochs=5)
    assert trainer.state.epoch == 4
    assert "no improvement over 3.0 for 2 evaluations" in caplog.text
    trainer.state.max_epochs = None
    scores[:] = [0.1, 0.2, 0.3, 0.4, 0.5]
    trainer.run([0], max_epochs=5)
    assert trainer.state.epoch == 5
    assert stopping.best_score == 0.5


def test_a_run_that_continues_keeps_what_was_loaded() -> None:
    scores = [1.0, 3.0, 2.0, 2.5, 2.6, 2.7]
    first, _, stopping = pair(scores, patience=3)
    first.run([0], max_epochs=3)
    position, saved = first.state_dict(), stopping.state_dict()
    assert saved == {"counter": 1, "best_score": 3.0}
    trainer, _, other = pair(scores, patience=3)
    trainer.load_state_dict(position)
    other.load_state_dict(saved)
    trainer.run([0], max_epochs=6)
    assert trainer.state.epoch == 5


def test_ignites_state_loads_and_a_foreign_one_does_not() -> None:
    _, _, stopping = pair([])
    stopping.load_state_dict({"counter": 2, "best_score": 0.5, "threshold_mode": "abs"})
    assert (stopping.counter, stopping.best_score) == (2, 0.5)
    with pytest.raises(ValueError, match="the state lacks 'best_score'; it has 'counter'"):
        stopping.load_state_dict({"counter": 2})


def test_it_can_be_reset_at_another_event() -> None:
    trainer, evaluator = Engine(lambda *_: None), Engine(lambda *_: None)
    stopping = EarlyStopping(9, lambda _: 1.0, trainer)
    counts = []
    stopping.attach(evaluator, Events.EPOCH_COMPLETED, trainer, Events.EPOCH_STARTED(every=2))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: counts.append(stopping.counter))
    trainer.run([0], max_epochs=5)
    assert counts == [0, 0, 1, 0, 1]
