"""The ready-made steps: what they compute, in which precision, over which windows."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import ignite.engine
import pytest
import torch
from torch import nn
from torch.optim import SGD

from cookfire.engine import (
    DeterministicEngine,
    Engine,
    Events,
    create_supervised_evaluator,
    create_supervised_trainer,
    supervised_evaluation_step,
    supervised_evaluation_step_amp,
    supervised_training_step,
    supervised_training_step_amp,
)

Batch = tuple[torch.Tensor, torch.Tensor]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 3))


def batches(count: int, size: int = 5) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 4, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def train(
    create: Callable[..., Any], data: Any, max_epochs: int = 3, **options: Any
) -> list[torch.Tensor]:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    create(model, optimizer, nn.CrossEntropyLoss(), **options).run(data, max_epochs=max_epochs)
    return weights(model)


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_training_gives_ignites_weights_bit_for_bit() -> None:
    ours = train(create_supervised_trainer, batches(7))
    assert same(ours, train(ignite.engine.create_supervised_trainer, batches(7)))


def test_the_output_is_the_detached_loss_and_formats_like_a_number() -> None:
    trainer = create_supervised_trainer(model := net(), SGD(model.parameters(), 0.1), nn.MSELoss())
    state = trainer.run([(torch.ones(2, 4), torch.zeros(2, 3))])
    assert state.output.shape == ()
    assert not state.output.requires_grad
    assert f"{state.output:.3f}" == f"{state.output.item():.3f}"


def test_every_function_argument_is_used() -> None:
    seen: dict[str, Any] = {}
    model = net()

    def prepare(batch: Batch, device: Any, non_blocking: bool) -> Batch:
        seen["prepare"] = device, non_blocking
        return batch

    def output(x: Any, y: Any, y_pred: Any, loss: Any) -> str:
        seen["output"] = x, y, y_pred, loss
        return "output"

    def call(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": model(x)}

    options: dict[str, Any] = {
        "device": "cpu",
        "non_blocking": True,
        "prepare_batch": prepare,
        "model_transform": lambda out: out["logits"],
        "model_fn": call,
    }
    trainer = create_supervised_trainer(
        model,
        SGD(model.parameters(), 0.1),
        nn.CrossEntropyLoss(),
        output_transform=output,
        **options,
    )
    assert trainer.run(batches(1)).output == "output"
    assert seen["prepare"] == ("cpu", True)
    assert seen["output"][2].shape == (5, 3)
    evaluator = create_supervised_evaluator(
        model, output_transform=lambda x, y, y_pred: (x, y, y_pred), **options
    )
    assert [tuple(item.shape) for item in evaluator.run(batches(1)).output] == [
        (5, 4),
        (5,),
        (5, 3),
    ]


def test_the_model_is_in_training_mode_only_while_it_trains() -> None:
    model = net()
    modes: list[bool] = []
    model.register_forward_hook(lambda module, x, y: modes.append(module.training))
    trainer = create_supervised_trainer(model, SGD(model.parameters(), 0.1), nn.CrossEntropyLoss())
    evaluator = create_supervised_evaluator(model)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(every=2), lambda: evaluator.run(batches(1))
    )
    model.eval()
    trainer.run(batches(4))
    assert modes == [True, True, False, True, True, False]


def test_an_evaluator_tracks_no_gradients() -> None:
    state = create_supervised_evaluator(net()).run(batches(1))
    assert not state.output[0].requires_grad


@pytest.mark.parametrize("length_known", [True, False])
@pytest.mark.parametrize("steps", [2, 3, 4, 8])
def test_accumulation_equals_the_whole_batch_also_in_the_last_window(
    steps: int, length_known: bool
) -> None:
    data = batches(7)
    windows = [data[begin : begin + steps] for begin in range(0, len(data), steps)]
    whole = [
        (torch.cat([x for x, _ in window]), torch.cat([y for _, y in window])) for window in windows
    ]

    class Unsized:
        def __iter__(self) -> Any:
            return iter(data)

    accumulated = train(
        create_supervised_trainer,
        data if length_known else Unsized(),
        gradient_accumulation_steps=steps,
    )
    for ours, expected in zip(accumulated, train(create_supervised_trainer, whole), strict=True):
        torch.testing.assert_close(ours, expected)


def test_accumulation_synchronises_gradients_once_a_window() -> None:
    class Wrapped(nn.Module):
        """Stands for DistributedDataParallel: counts the backward passes without sync."""

        def __init__(self) -> None:
            super().__init__()
            self.module, self.without_sync = net(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x)

        def no_sync(self) -> Any:
            self.without_sync += 1
            return torch.enable_grad()

    model = Wrapped()
    create_supervised_trainer(
        model,
        SGD(model.parameters(), 0.1),
        nn.CrossEntropyLoss(),
        gradient_accumulation_steps=3,
    ).run(batches(7))
    assert model.without_sync == 4


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_a_bad_number_of_accumulation_steps_is_refused(steps: Any) -> None:
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        train(create_supervised_trainer, batches(1), gradient_accumulation_steps=steps)


def test_mixed_precision_on_cpu_computes_in_bfloat16() -> None:
    dtypes: list[torch.dtype] = []
    model = net()
    model.register_forward_hook(lambda module, x, y: dtypes.append(y.dtype))
    trainer = create_supervised_trainer(
        model, SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), amp_mode="amp"
    )
    assert trainer.run(batches(1)).output.dtype == torch.float32
    create_supervised_evaluator(model, amp_mode="amp").run(batches(1))
    assert dtypes == [torch.bfloat16] * 2


def test_mixed_precision_in_float16_with_a_scaler_trains() -> None:
    model = net()
    trainer = create_supervised_trainer(
        model,
        SGD(model.parameters(), 0.1),
        nn.CrossEntropyLoss(),
        amp_mode="amp",
        amp_dtype=torch.float16,
        scaler=True,
        gradient_accumulation_steps=2,
    )
    losses: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output))
    )
    state = trainer.run(batches(1) * 5, max_epochs=10)
    assert losses[-1] < 0.5 * losses[0]
    assert state.scaler.get_scale() > 1


def test_mixed_precision_is_asked_for_by_name() -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match="retired in favour of torch.amp"):
        create_supervised_trainer(model, optimizer, nn.MSELoss(), amp_mode="apex")
    with pytest.raises(ValueError, match="scaler and amp_dtype need amp_mode"):
        create_supervised_trainer(model, optimizer, nn.MSELoss(), scaler=True)
    with pytest.raises(ValueError, match="amp_mode must be None or 'amp'"):
        create_supervised_evaluator(model, amp_mode="fp16")
    with pytest.raises(ValueError, match="amp_dtype needs amp_mode"):
        create_supervised_evaluator(model, amp_dtype=torch.float16)


def test_the_bare_steps_serve_in_an_engine() -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    for step in (
        supervised_training_step(model, optimizer, nn.CrossEntropyLoss()),
        supervised_training_step_amp(model, optimizer, nn.CrossEntropyLoss()),
    ):
        before = weights(model)
        assert Engine(step).run(batches(2)).output.shape == ()
        assert not same(before, weights(model))
    for step in (supervised_evaluation_step(model), supervised_evaluation_step_amp(model)):
        y_pred, y = Engine(step).run(batches(2)).output
        assert (y_pred.shape, y.shape) == ((5, 3), (5,))


def test_metrics_are_attached_by_name() -> None:
    class Metric:
        def attach(self, engine: Engine, name: str) -> None:
            engine.add_event_handler(
                Events.COMPLETED, lambda e: e.state.metrics.update({name: 1.0})
            )

    state = create_supervised_evaluator(net(), metrics={"one": Metric()}).run(batches(1))
    assert state.metrics == {"one": 1.0}


def test_a_deterministic_trainer_is_one() -> None:
    model = net()
    trainer = create_supervised_trainer(
        model, SGD(model.parameters(), 0.1), nn.MSELoss(), deterministic=True
    )
    assert isinstance(trainer, DeterministicEngine)


def test_the_optimizer_steps_once_an_iteration() -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    expected = copy.deepcopy(model)
    reference = SGD(expected.parameters(), 0.1)
    for x, y in batches(3):
        reference.zero_grad()
        nn.functional.cross_entropy(expected(x), y).backward()
        reference.step()
    create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss()).run(batches(3))
    assert same(weights(model), weights(expected))


@pytest.mark.parametrize("batch", [{"x": 1, "y": 2}, [torch.ones(2, 3)] * 3, 5])
def test_a_batch_that_is_no_pair_is_told_how_to_make_one(batch: object) -> None:
    evaluator = create_supervised_evaluator(nn.Linear(3, 1))
    with pytest.raises(TypeError, match=r"should be a pair \(x, y\), got a \w+.*prepare_batch"):
        evaluator.run([batch])


@pytest.mark.parametrize("event", [Events.GET_BATCH_COMPLETED, Events.ITERATION_STARTED])
def test_a_batch_that_is_refused_within_a_window_leaves_no_trace(event: Any) -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), net())
    trainer = create_supervised_trainer(
        model, SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), gradient_accumulation_steps=4
    )

    @trainer.on(event)
    def refuse() -> None:
        if not trainer.state.batch[0].isfinite().all():
            trainer.terminate_epoch()

    data = batches(6)
    data[2][0].fill_(torch.inf)
    trainer.run(data, max_epochs=1)
    assert model[0].num_batches_tracked == 2
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    twin = nn.Sequential(nn.BatchNorm1d(4), net())
    other = create_supervised_trainer(
        twin, SGD(twin.parameters(), lr=0.1), nn.CrossEntropyLoss(), gradient_accumulation_steps=2
    )
    other.run(data[:2], max_epochs=1)
    for mine, theirs in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("skip", [False, True])
def test_an_epoch_that_is_ended_within_a_window_takes_its_step(skip: bool) -> None:
    model, steps = net(), []
    optimizer = SGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(
        model, optimizer, nn.CrossEntropyLoss(), gradient_accumulation_steps=4
    )
    optimizer.register_step_post_hook(lambda *_: steps.append(trainer.state.iteration))

    @trainer.on(Events.ITERATION_COMPLETED)
    def end() -> None:
        if trainer.epoch_iteration == 2:
            trainer.terminate_epoch(skip_epoch_completed=skip)

    trainer.run(batches(8), max_epochs=3)
    assert steps == [2, 4, 6]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_trainer_and_its_model_are_freed_without_the_collector(accumulation: int) -> None:
    gc.disable()
    try:
        model = net()
        trainer = create_supervised_trainer(
            model, SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(),
            gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        trainer.run(batches(3))
        alive = weakref.ref(model)
        del model, trainer
        assert alive() is None
    finally:
        gc.enable()
