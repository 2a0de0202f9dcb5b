"""The trackers of runs, against stand-ins that record what is called."""

import importlib
import inspect
import sys
import warnings

import pytest
import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers import _delivery, common
from cookfire.handlers.clearml_logger import ClearMLLogger
from tests.handlers.helpers import engine_at
from tests.handlers.saying import saying

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ignite.handlers.clearml_logger
    import ignite.handlers.mlflow_logger
    import ignite.handlers.neptune_logger
    import ignite.handlers.polyaxon_logger
    import ignite.handlers.tensorboard_logger
    import ignite.handlers.visdom_logger
    import ignite.handlers.wandb_logger
from tests.handlers.trackers import LOGGERS, make, points, put


class TestAllOfThem:
    def test_handlers_of_all_kinds_log_names_values_and_steps(self, tracker):
        module = importlib.import_module(LOGGERS[tracker.module.__name__][0].__module__)
        net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, bias=False))
        nn.init.constant_(net[1].weight, 3.0)
        net[1].weight.grad = torch.full((1, 1), -4.0)
        sgd = torch.optim.SGD(net.parameters(), lr=0.5)
        trainer = Engine(lambda engine, batch: torch.tensor(float(batch)))
        with make(tracker) as logger:
            logger.attach_output_handler(
                trainer,
                Events.ITERATION_COMPLETED(every=2),
                tag="training",
                output_transform=lambda loss: {"loss": loss, "both": [1, 2.5]},
            )
            logger.attach_opt_params_handler(trainer, Events.EPOCH_STARTED, sgd)
            for handler in (
                module.WeightsScalarHandler(net, whitelist=["1"]),
                module.GradsScalarHandler(net, tag="gan"),
            ):
                logger.attach(trainer, handler, Events.EPOCH_COMPLETED)
            trainer.run([5, 7], max_epochs=1)
        assert points(tracker) == [
            ("lr/group_0", 0.5, 1),
            ("training/loss", 7.0, 2),
            ("training/both/0", 1, 2),
            ("training/both/1", 2.5, 2),
            ("weights_norm/1/weight", 3.0, 1),
            ("gan/grads_norm/1/weight", 4.0, 1),
        ]

    def test_parameters_wait_for_the_run_and_nothing_is_begun_without_need(self, tracker):
        logger = make(tracker)
        logger.log_params({"lr": 0.1, "model": {"name": "resnet"}})
        assert not hasattr(logger, "module")
        assert tracker.calls == []
        logger.log_metrics({"loss": 0.5}, 1)
        values = str(tracker.calls)
        assert "0.1" in values
        assert "resnet" in values
        assert values.index("resnet") < values.index("loss")

    def test_parameters_alone_make_a_run_too(self, tracker):
        with make(tracker) as logger:
            logger.log_params({"lr": 0.125})
        assert "0.125" in str(tracker.calls)

    def test_nothing_logged_makes_none(self, tracker):
        make(tracker).close()
        assert tracker.calls == []

    def test_a_checkpoint_continues_its_run(self, tracker):
        first = make(tracker)
        first.log_metrics({"loss": 0.5}, 1)
        state = first.state_dict()
        first.close()
        assert state == {"run_id": first.run_id}
        tracker.calls.clear()
        again = make(tracker)
        again.log_params({"lr": 0.1})
        again.load_state_dict({"run_id": "theirs"})
        again.log_metrics({"train/loss": 0.25}, 2)
        assert "'theirs'" in str(tracker.calls[:3])
        assert points(tracker) == [("train/loss", 0.25, 2)]

    def test_a_run_that_was_begun_too_early_is_ended(self, tracker):
        logger = make(tracker)
        logger.log_metrics({"loss": 0.5}, 1)
        ends = ("Run.finish", "Task.close", "Run.stop", "Run.end", "Visdom.save")
        assert not any(tracker.of(end) for end in ends)
        logger.load_state_dict({"run_id": "theirs"})
        assert any(tracker.of(end) for end in ends)

    def test_a_tracker_out_of_reach_is_said_once_and_catches_up(self, tracker, monkeypatch):
        monkeypatch.setattr(_delivery, "SECONDS", 0.0)
        monkeypatch.setattr(_delivery, "SHARE", 0.0)
        engine = Engine(lambda engine, batch: float(batch))
        logger = make(tracker)
        logger.log_params({"lr": 0.1})
        logger.attach_output_handler(
            engine, Events.ITERATION_COMPLETED, "train", output_transform=lambda x: {"loss": x}
        )
        tracker.error = RuntimeError("no answer")

        @engine.on(Events.ITERATION_COMPLETED(once=3))
        def answer_again():
            assert not logger.run
            logger.run.anything.at_all("does nothing")["here"] = "either"
            tracker.error = None

        with saying() as said:
            engine.run([1, 2, 3, 4])
        (text,) = said
        assert "no run could be started (no answer). The training goes on" in text
        assert points(tracker) == [("train/loss", float(i), i) for i in (1, 2, 3, 4)]
        assert "0.1" in str(tracker.calls)

    def test_a_tracker_that_dies_midway_is_said_once(self, tracker):
        logger = make(tracker)
        logger.log_metrics({"loss": 0.0}, 0)
        tracker.error = ConnectionError("gone")
        with saying() as said:
            for step in range(5):
                logger.log_metrics({"loss": 1.0}, step)
            logger.close()
        assert "gone" in said[0]
        assert "5 records are lost" in said[1]
        assert len(said) == 2

    def test_a_missing_package_is_named_with_what_to_install(self, tracker, monkeypatch):
        package = tracker.module.__name__.split(".")[0]
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ModuleNotFoundError, match=f"pip install .*{package}"):
            make(tracker)

    def test_arguments_that_the_tracker_does_not_take_are_refused_at_once(self, tracker):
        if tracker.module.__name__ == "neptune":  # init_run takes any
            tracker.interface = tracker.interface | {"init_run": "api_token, project"}
        with pytest.raises(TypeError, match="projekt"):
            make(tracker, projekt="p")

    def test_an_exception_marks_the_run(self, tracker):
        logger = make(tracker)
        logger.log_metrics({"loss": 0.5}, 1)
        with pytest.raises(ZeroDivisionError), logger:
            _ = 1 / 0
        marks = {
            "wandb": ("Run.finish", {"exit_code": 1}),
            "clearml": ("Task.mark_failed", {"status_reason": "ZeroDivisionError"}),
            "neptune": ("set sys/failed", {"value": True}),
            "polyaxon.tracking": ("Run.log_failed", {"reason": "ZeroDivisionError"}),
            "visdom": ("Visdom.save", {"envs": ["first"]}),
        }
        assert marks[tracker.module.__name__] in tracker.calls


SETUPS = {
    "setup_wandb_logging": ("wandb", {"project": "p"}),
    "setup_clearml_logging": ("clearml", {"project_name": "p"}),
    "setup_neptune_logging": ("neptune", {"project": "p"}),
    "setup_plx_logging": ("polyaxon.tracking", {"project": "p"}),
    "setup_visdom_logging": ("visdom", {"env": "first"}),
}


@pytest.mark.parametrize("name", SETUPS)
def test_one_call_logs_metrics_and_learning_rates(name, monkeypatch):
    package, options = SETUPS[name]
    tracker = put(package, monkeypatch)
    trainer, evaluator = engine_at(loss=1.5, time=3), engine_at(acc=0.5)
    sgd = torch.optim.SGD([torch.zeros(1)], lr=0.25)
    logger = getattr(common, name)(
        trainer, sgd, {"test": evaluator}, 2, trainer_metric_names=["loss"], **options
    )
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda: trainer.state.metrics.update(loss=1.5, time=3)
    )
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: evaluator.state.metrics.update(acc=0.5)
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.run([0, 0])
    logger.close()
    assert points(tracker) == [
        ("lr/group_0", 0.25, 2),
        ("training/loss", 1.5, 2),
        ("test/acc", 0.5, 1),
    ]


def test_trains_is_clearml_now(clearml):
    with pytest.warns(DeprecationWarning, match="use setup_clearml_logging"):
        logger = common.setup_trains_logging(engine_at(), project_name="p")
    assert isinstance(logger, ClearMLLogger)


MODULES = ["tensorboard", "mlflow", "wandb", "clearml", "neptune", "polyaxon", "visdom"]


@pytest.mark.parametrize("name", MODULES)
def test_names_and_signatures_are_those_of_ignite(name):
    theirs = getattr(ignite.handlers, f"{name}_logger")
    ours = importlib.import_module(f"cookfire.handlers.{name}_logger")
    assert set(theirs.__all__) <= set(ours.__all__)
    for function in set(theirs.__all__) - {"NeptuneSaver"}:
        wanted = inspect.signature(getattr(theirs, function)).parameters.values()
        got = list(inspect.signature(getattr(ours, function)).parameters.values())
        if (function, name) == ("MLflowLogger", "mlflow") or "Scalar" in function:
            got = got[: len(wanted)]  # ours has more: names of the run; Visdom's a whitelist
        assert [(one.name, one.kind, one.default) for one in got] == [
            (one.name, one.kind, one.default) for one in wanted
        ]
