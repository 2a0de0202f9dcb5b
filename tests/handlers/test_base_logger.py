"""Handlers that log outputs, optimizers and weights, and how they are attached."""

import warnings

import pytest
import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers.base_logger import (
    BaseHandler,
    BaseOutputHandler,
    GradsHistHandler,
    GradsScalarHandler,
    OptimizerParamsHandler,
    OutputHandler,
    WeightsHistHandler,
    WeightsScalarHandler,
    global_step_from_engine,
)
from tests.handlers.recorder import Recorder
from tests.handlers.saying import saying


@pytest.fixture
def logger():
    return Recorder()


@pytest.fixture
def engine():
    engine = Engine(lambda engine, batch: torch.tensor(float(batch)))
    engine.state.iteration, engine.state.epoch = 7, 2
    return engine


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    model(torch.ones(4, 2)).sum().backward()
    model[2].weight.grad = None
    return model


def logged(handler, engine, logger, event=Events.ITERATION_COMPLETED):
    handler(engine, logger, event)
    return logger.scalars[-1] if logger.scalars else None


class TestOutputHandler:
    def test_a_dictionary_of_outputs_is_logged_under_its_tag(self, engine, logger):
        engine.state.output = torch.tensor(0.5)
        handler = OutputHandler("train", output_transform=lambda loss: {"loss": loss})
        assert logged(handler, engine, logger) == (7, {"train/loss": 0.5})

    def test_a_single_output_is_called_output(self, engine, logger):
        engine.state.output = 3
        handler = OutputHandler("train", output_transform=lambda output: output)
        assert logged(handler, engine, logger) == (7, {"train/output": 3})

    def test_without_a_tag_names_stay_as_they_are(self, engine, logger):
        engine.state.metrics = {"accuracy": 0.5}
        assert logged(OutputHandler("", "all"), engine, logger)[1] == {"accuracy": 0.5}

    def test_all_metrics_or_those_named_are_logged(self, engine, logger):
        engine.state.metrics = {"accuracy": 0.5, "iou": torch.tensor([0.25, 1.0])}
        names = logged(OutputHandler("val", "all"), engine, logger)[1]
        assert names == {"val/accuracy": 0.5, "val/iou/0": 0.25, "val/iou/1": 1.0}
        assert logged(OutputHandler("val", ["accuracy"]), engine, logger)[1] == {
            "val/accuracy": 0.5
        }

    def test_attributes_of_the_state_are_logged(self, engine, logger):
        engine.state.alpha = 0.25
        handler = OutputHandler("train", state_attributes=["alpha"])
        assert logged(handler, engine, logger)[1] == {"train/alpha": 0.25}

    def test_the_step_is_the_count_of_the_event_or_what_the_transform_says(self, engine, logger):
        engine.state.metrics = {"accuracy": 0.5}
        handler = OutputHandler("val", "all")
        assert logged(handler, engine, logger, Events.EPOCH_COMPLETED)[0] == 2
        assert logged(handler, engine, logger, Events.ITERATION_COMPLETED(every=7))[0] == 7
        trainer = Engine(lambda engine, batch: None)
        trainer.state.epoch = 5
        transform = global_step_from_engine(trainer)
        handler = OutputHandler("val", "all", global_step_transform=transform)
        assert logged(handler, engine, logger, Events.COMPLETED)[0] == 5

    def test_a_missing_metric_is_said_once_with_those_that_exist(self, engine, logger):
        engine.state.metrics = {"accuracy": 0.5, "loss": 1.0}
        handler = OutputHandler("val", ["accuracy", "acuracy"])
        with saying() as said:
            for _ in range(5):
                handler(engine, logger, Events.EPOCH_COMPLETED)
        (text,) = said
        assert text.startswith("Recorder (tag 'val', event 'epoch_completed'): there is no metric")
        assert "'acuracy' at this event; engine.state.metrics has 'accuracy', 'loss'." in text
        assert logger.scalars == [(2, {"val/accuracy": 0.5})] * 5

    def test_a_missing_attribute_is_said_once(self, engine, logger):
        handler = OutputHandler("val", state_attributes=["beta"])
        with saying() as said:
            for _ in range(2):
                handler(engine, logger, Events.EPOCH_COMPLETED)
        (text,) = said
        assert text.endswith("engine.state has no attribute 'beta'")

    def test_what_is_no_number_is_said_once_and_the_rest_is_logged(self, engine, logger):
        engine.state.output = {"image": torch.zeros(2, 2), "note": "text", "loss": 1}
        handler = OutputHandler("train", output_transform=lambda output: output)
        with saying() as said:
            for _ in range(2):
                handler(engine, logger, Events.EPOCH_COMPLETED)
        first, second = said
        assert "'train/image': Tensor of shape (2, 2) is not a number" in first
        assert "'train/note': str is not a number" in second
        assert logger.scalars[0][1] == {"train/loss": 1}

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({}, ValueError, "nothing to log"),
            ({"metric_names": "loss"}, TypeError, r"for this metric alone write \['loss'\]"),
            ({"metric_names": 3}, TypeError, r"got 3 \(int\)"),
            ({"output_transform": 3}, TypeError, r"output_transform .* got 3 \(int\)"),
            ({"state_attributes": "a"}, TypeError, "state_attributes must be a list"),
            (
                {"metric_names": "all", "global_step_transform": 3},
                TypeError,
                r"global_step_transform .* got 3 \(int\)",
            ),
        ],
    )
    def test_wrong_arguments_are_refused(self, arguments, error, message):
        with pytest.raises(error, match=message):
            OutputHandler("train", **arguments)

    def test_an_error_in_the_transform_is_the_users_and_goes_on(self, engine, logger):
        handler = OutputHandler("train", output_transform=lambda output: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            handler(engine, logger, Events.ITERATION_COMPLETED)


class TestOptimizerParamsHandler:
    def test_each_groups_value_is_logged(self, engine, logger, model):
        optimizer = torch.optim.SGD(
            [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}],
            lr=0.25,
        )
        handler = OptimizerParamsHandler(optimizer)
        assert logged(handler, engine, logger) == (7, {"lr/group_0": 0.5, "lr/group_1": 0.25})
        handler = OptimizerParamsHandler(optimizer, "momentum", tag="gan")
        assert logged(handler, engine, logger)[1] == {
            "gan/momentum/group_0": 0.0,
            "gan/momentum/group_1": 0.0,
        }

    def test_a_tensor_or_tuple_is_logged_as_numbers(self, engine, logger, model):
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.5), betas=(0.5, 0.25))
        assert logged(OptimizerParamsHandler(optimizer), engine, logger)[1] == {"lr/group_0": 0.5}
        assert logged(OptimizerParamsHandler(optimizer, "betas"), engine, logger)[1] == {
            "betas/group_0/0": 0.5,
            "betas/group_0/1": 0.25,
        }

    def test_wrong_arguments_are_refused(self, model):
        with pytest.raises(TypeError, match=r"param_groups, got int"):
            OptimizerParamsHandler(3)
        optimizer = torch.optim.SGD(model.parameters())
        with pytest.raises(ValueError, match=r"SGD has no 'lrr'; it has .*lr, .*momentum"):
            OptimizerParamsHandler(optimizer, "lrr")


class TestWeightsHandlers:
    def test_norms_of_weights_and_gradients_are_logged_by_name(self, engine, logger, model):
        _, values = logged(WeightsScalarHandler(model), engine, logger)
        assert values == {
            f"weights_norm/{name.replace('.', '/')}": pytest.approx(weight.norm().item())
            for name, weight in model.named_parameters()
        }
        _, values = logged(GradsScalarHandler(model, tag="gan"), engine, logger)
        assert values == {
            f"gan/grads_norm/{name.replace('.', '/')}": pytest.approx(weight.grad.norm().item())
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }
        assert len(values) == 3

    def test_another_reduction_gives_its_name(self, engine, logger, model):
        handler = WeightsScalarHandler(model, reduction=torch.mean, whitelist=["0.weight"])
        assert logged(handler, engine, logger)[1] == {
            "weights_mean/0/weight": pytest.approx(model[0].weight.mean().item())
        }

    def test_histograms_get_the_whole_tensors(self, engine, logger, model):
        WeightsHistHandler(model, tag="gan")(engine, logger, Events.EPOCH_COMPLETED)
        assert [name for _, name, _ in logger.histograms] == [
            "gan/weights/0/weight",
            "gan/weights/0/bias",
            "gan/weights/2/weight",
            "gan/weights/2/bias",
        ]
        assert torch.equal(logger.histograms[0][2], model[0].weight)
        assert not logger.histograms[0][2].requires_grad
        logger.histograms.clear()
        GradsHistHandler(model)(engine, logger, Events.EPOCH_COMPLETED)
        assert [(step, name) for step, name, _ in logger.histograms] == [
            (2, "grads/0/weight"),
            (2, "grads/0/bias"),
            (2, "grads/2/bias"),
        ]

    def test_a_whitelist_names_beginnings_or_is_a_function(self, engine, logger, model):
        handler = WeightsScalarHandler(model, whitelist=["2"])
        assert set(logged(handler, engine, logger)[1]) == {
            "weights_norm/2/weight",
            "weights_norm/2/bias",
        }
        handler = WeightsScalarHandler(model, whitelist=lambda name, weight: weight.ndim == 1)
        assert set(logged(handler, engine, logger)[1]) == {
            "weights_norm/0/bias",
            "weights_norm/2/bias",
        }

    def test_wrapping_does_not_change_the_names(self, engine, logger, model):
        plain = logged(WeightsScalarHandler(model), engine, logger)
        wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
        handler = WeightsScalarHandler(wrapped, whitelist=["0", "2"])
        assert logged(handler, engine, logger) == plain

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"model": 3}, TypeError, "must be a torch.nn.Module, got int"),
            ({"whitelist": 3}, TypeError, "list of names or a function, got 3"),
            ({"whitelist": "0"}, TypeError, "list of names or a function, got '0'"),
            ({"whitelist": ["fc"]}, ValueError, r"begins with 'fc'; there are 0\.weight, 0\.bias"),
            ({"reduction": 3}, TypeError, "reduction must be a function"),
            ({"reduction": torch.exp}, TypeError, "reduction must return a number"),
        ],
    )
    def test_wrong_arguments_are_refused(self, model, arguments, error, message):
        with pytest.raises(error, match=message):
            WeightsScalarHandler(**{"model": model} | arguments)


class TestAttaching:
    def test_any_callable_gets_engine_logger_event_and_arguments(self, engine, logger):
        seen = []
        logger.attach(
            engine,
            log_handler=lambda *args, **kwargs: seen.append((args, kwargs)),
            event_name=Events.EPOCH_COMPLETED,
            note="mine",
        )
        engine.run([0], max_epochs=1)
        assert seen == [((engine, logger, Events.EPOCH_COMPLETED), {"note": "mine"})]

    def test_each_of_several_events_is_named_to_the_handler(self, engine, logger):
        seen = []
        events = Events.EPOCH_COMPLETED(every=2) | Events.COMPLETED
        handle = logger.attach(
            engine, lambda engine, logger, event: seen.append(str(event)), events
        )
        engine.run([0], max_epochs=3)
        assert seen == ["epoch_completed(every=2)", "completed"]
        handle.remove()
        engine.run([0], max_epochs=4)
        assert len(seen) == 2

    def test_output_and_optimizer_handlers_are_attached_by_name(self, logger, model):
        engine = Engine(lambda engine, batch: torch.tensor(float(batch)))
        logger.attach_output_handler(
            engine,
            Events.ITERATION_COMPLETED(every=2),
            tag="train",
            output_transform=lambda loss: {"loss": loss},
        )
        handle = logger.attach_opt_params_handler(
            engine, Events.EPOCH_STARTED, optimizer=torch.optim.SGD(model.parameters(), lr=0.5)
        )
        engine.run([0, 1, 2, 3], max_epochs=1)
        handle.remove()
        assert logger.scalars == [
            (1, {"lr/group_0": 0.5}),
            (2, {"train/loss": 1.0}),
            (4, {"train/loss": 3.0}),
        ]

    def test_a_subclass_may_bring_its_own_handlers_as_in_ignite(self, engine):
        class Own(OutputHandler):
            def __call__(self, engine, logger, event_name):
                logger.log_metrics({"own": 1}, 5)

        class Logger(Recorder):
            def _create_output_handler(self, *args, **kwargs):
                return Own(*args, **kwargs)

        logger = Logger()
        logger.attach_output_handler(engine, Events.COMPLETED, "x", metric_names="all")
        engine.run([0])
        assert logger.scalars == [(5, {"own": 1})]
        assert issubclass(Own, BaseHandler)
        assert issubclass(Own, BaseOutputHandler)


def test_names_equal_those_of_ignite(engine, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ignite.engine import Engine as TheirEngine
        from ignite.handlers import tensorboard_logger as theirs

    names = []

    class Writer:
        def add_scalar(self, name, value, step):
            names.append((name, pytest.approx(float(value)), step))

        def add_histogram(self, tag, values, global_step):
            names.append((tag, values.shape, global_step))

    class Their(theirs.TensorboardLogger):
        writer = Writer()

        def __init__(self):
            pass

    class Our(Recorder):
        def write_scalars(self, scalars, step):
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)

        def write_histogram(self, values, name, step):
            self.writer.add_histogram(name, values, step)

        writer = Writer()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    output = {"a": torch.tensor(1.5), "b": [1, 2], "c": {"d": 1, "e": torch.tensor([1.0, 2.0])}}
    cases = [
        ("OutputHandler", ("tag", "all", lambda output: output)),
        ("OutputHandler", ("tag", ["iou"], lambda output: output["a"])),
        ("OptimizerParamsHandler", (optimizer, "momentum", "gan")),
        ("WeightsScalarHandler", (model,)),
        ("WeightsScalarHandler", (model, torch.mean, "gan", ["0", "2.w"])),
        ("GradsScalarHandler", (model, torch.norm, "gan")),
        ("WeightsHistHandler", (model, "gan")),
        ("GradsHistHandler", (model,)),
    ]
    their_engine = TheirEngine(lambda engine, batch: None)
    for state in (engine.state, their_engine.state):
        state.iteration, state.epoch, state.output = 7, 2, output
        state.metrics = {"accuracy": 0.5, "iou": torch.tensor([0.25, 0.75])}
    from ignite.engine import Events as TheirEvents

    for name, arguments in cases:
        getattr(theirs, name)(*arguments)(their_engine, Their(), TheirEvents.EPOCH_COMPLETED)
        expected = sorted(names, key=lambda item: item[0])
        names.clear()
        globals()[name](*arguments)(engine, Our(), Events.EPOCH_COMPLETED)
        assert sorted(names, key=lambda item: item[0]) == expected
        assert expected
        names.clear()
