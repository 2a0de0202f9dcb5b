"""Trackers that are out of reach: the training goes on, is told once, and loses little."""

from types import SimpleNamespace

import pytest
import torch

from cookfire.engine import Engine, Events
from cookfire.handlers import _delivery
from tests.handlers.recorder import Recorder
from tests.handlers.saying import saying


class Failing(Recorder):
    """A tracker that can be out of reach."""

    error: Exception | None = None
    closed = 0

    def write_scalars(self, scalars, step):
        if self.error is not None:
            raise self.error
        super().write_scalars(scalars, step)

    def write_histogram(self, values, name, step):
        raise NotImplementedError

    def close_tracker(self):
        self.closed += 1


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_delivery.time, "monotonic", lambda: clock.now)
    return clock


class TestFailingTrackers:
    def test_a_training_goes_on_and_is_told_once(self, clock):
        logger = Failing()
        logger.error = ConnectionError("no route to host")
        engine = Engine(lambda engine, batch: batch)
        logger.attach_output_handler(
            engine, Events.ITERATION_COMPLETED, "train", output_transform=lambda output: output
        )
        with saying() as said:
            state = engine.run(range(10), max_epochs=2)
        assert state.iteration == 20
        (text,) = said
        assert "Failing could not write metrics: ConnectionError: no route to host" in text
        assert "training goes on" in text

    def test_what_an_outage_held_up_is_written_in_order_when_it_is_over(self, clock):
        logger = Failing()
        logger.error = OSError("disk full")
        with pytest.warns(UserWarning, match="disk full"):
            logger.log_metrics({"loss": 1.0}, 1)
        logger.error = None
        logger.log_metrics({"loss": 2.0}, 2)
        assert logger.scalars == [], "it was tried again too early"
        clock.now += _delivery.SECONDS
        logger.log_metrics({"loss": 3.0}, 3)
        assert logger.scalars == [(1, {"loss": 1.0}), (2, {"loss": 2.0}), (3, {"loss": 3.0})]

    def test_a_slow_failure_is_tried_again_the_later(self, clock):
        class Slow(Failing):
            tries = 0

            def write_scalars(self, scalars, step):
                self.tries += 1
                clock.now += 60.0
                raise TimeoutError

        logger = Slow()
        with pytest.warns(UserWarning, match="TimeoutError"):
            logger.log_metrics({"loss": 1.0})
        clock.now += 599.0
        logger.log_metrics({"loss": 1.0})
        assert logger.tries == 1
        clock.now += 2.0
        logger.log_metrics({"loss": 1.0})
        assert logger.tries == 2

    def test_closing_tries_a_last_time_and_says_what_is_lost(self, clock):
        logger = Failing()
        logger.error = OSError("gone")
        with saying() as said:
            for step in range(3):
                logger.log_metrics({"loss": 1.0}, step)
            logger.close()
        assert said[1:] == ["Failing is still out of reach: 3 records are lost"]
        assert logger.closed == 1
        logger = Failing()
        logger.error = OSError("gone")
        with pytest.warns(UserWarning, match="gone"):
            logger.log_metrics({"loss": 1.0}, 1)
        logger.error = None
        logger.close()
        assert logger.scalars == [(1, {"loss": 1.0})]

    def test_a_record_that_is_at_fault_itself_is_left_out_alone(self):
        logger = Failing()
        logger.error = ValueError("what a name\nand more")
        with saying() as said:
            for step in range(3):
                logger.log_metrics({"loss": 1.0}, step)
        (text,) = said
        assert "ValueError: what a name. The training goes on" in text
        logger.error = None
        logger.log_metrics({"loss": 1.0}, 3)
        assert logger.scalars == [(3, {"loss": 1.0})]

    def test_what_a_tracker_has_no_place_for_is_said_once(self):
        logger = Failing()
        with saying() as said:
            logger.log_histogram(torch.ones(2), "weights")
            logger.log_histogram(torch.ones(2), "weights")
        assert said == ["Failing has no place for a histogram; left out"]

    def test_what_is_kept_during_an_outage_is_bounded(self, clock, monkeypatch):
        monkeypatch.setattr(_delivery, "BACKLOG", 5)
        logger = Failing()
        logger.error = OSError("gone")
        with saying() as said:
            for step in range(20):
                logger.log_metrics({"loss": 1.0}, step)
        assert len(said) == 1
        logger.error = None
        logger.close()
        assert [step for step, _ in logger.scalars] == [15, 16, 17, 18, 19]

    def test_an_interruption_is_not_held_back(self):
        logger = Failing()
        logger.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            logger.log_metrics({"loss": 1.0})

    def test_leaving_a_with_block_closes(self):
        with Failing() as logger:
            logger.log_metrics({"loss": 1.0})
        assert logger.closed == 1
        with pytest.raises(ZeroDivisionError), logger:
            _ = 1 / 0
        assert logger.closed == 2
