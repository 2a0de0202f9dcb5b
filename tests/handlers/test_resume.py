"""Resumed equals uninterrupted, bit for bit: whatever is attached, wherever it was saved."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import lr_scheduler
from torch.utils.data import Dataset

import cookfire.handlers
from cookfire.distributed import auto_dataloader, derive_seed
from cookfire.engine import Engine, Events, create_supervised_trainer
from cookfire.handlers import (
    BaseParamScheduler,
    BatchSizeScheduler,
    Checkpoint,
    ConcatScheduler,
    CosineAnnealingScheduler,
    EarlyStopping,
    EMAHandler,
    EpochOutputStore,
    ExpStateScheduler,
    GradientClipping,
    LambdaScheduler,
    LambdaStateScheduler,
    LinearCyclicalScheduler,
    LRScheduler,
    MultiStepStateScheduler,
    ParamGroupScheduler,
    PiecewiseLinear,
    PiecewiseLinearStateScheduler,
    ReduceLROnPlateauScheduler,
    RunState,
    StepStateScheduler,
    create_lr_scheduler_with_warmup,
)
from cookfire.metrics import RunningAverage

EPOCHS, BATCHES = 4, 7  # the last batch of an epoch is smaller


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Augments each sample as a function of (seed, epoch, index)."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        generator = torch.Generator().manual_seed(index)
        noise = torch.Generator().manual_seed(derive_seed(0, epoch, index))
        x = torch.randn(4, generator=generator)
        return x + 0.1 * torch.randn(4, generator=noise), x.sum().unsqueeze(0)


class Training:
    """A model with all that remembers something; a part adds one thing more."""

    def __init__(self, part: str, workers: int, seed: int) -> None:
        torch.manual_seed(seed)  # of the new process: resuming must not depend on it
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.optimizer = torch.optim.SGD(
            [{"params": list(self.model[0].parameters())},
             {"params": list(self.model[1:].parameters())}], lr=0.05, momentum=0.9,
        )  # fmt: skip
        self.objects: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        options: dict[str, Any] = {}
        if part in ("accumulation", "everything"):
            options["gradient_accumulation_steps"] = 3
        if part in ("scaler", "everything"):
            scaler = GradScaler("cpu", init_scale=64.0, growth_interval=5)
            self.objects["scaler"] = scaler
            options |= {"amp_mode": "amp", "amp_dtype": torch.bfloat16, "scaler": scaler}
        self.trainer = create_supervised_trainer(
            self.model, self.optimizer, nn.MSELoss(), **options
        )
        self.loader = auto_dataloader(
            Samples(), batch_size=8, shuffle=True, with_epoch=True, num_workers=workers
        )
        PARTS[part](self)
        self.seen: list[Any] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        self.state = RunState(self.trainer, **self.objects)

    def _see(self, engine: Engine) -> None:
        groups = [[group["lr"], group["momentum"]] for group in self.optimizer.param_groups]
        extra = [getattr(engine.state, name, None) for name in ("noise", "ema_momentum")]
        self.seen.append((engine.state.iteration, float(engine.state.output), groups, extra))

    def evaluate_with(self, handler: Callable[..., Any]) -> Engine:
        """Attach an evaluator whose metric depends on the weights."""
        evaluator = Engine(lambda *_: None)
        evaluator.add_event_handler(
            Events.EPOCH_COMPLETED,
            lambda engine: engine.state.metrics.update(
                loss=self.model[3].weight.abs().sum().item()
            ),
        )
        evaluator.add_event_handler(Events.COMPLETED, handler)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
        return evaluator

    def run(self) -> None:
        self.trainer.run(self.loader, max_epochs=EPOCHS)

    def schedules(self) -> Iterator[BaseParamScheduler]:
        """Iterate over all that a save finds, and their parts."""
        found = [*self.state._attached().values(), *self.objects.values()]
        for one in found:
            found += getattr(one, "schedulers", [])
        return (one for one in found if isinstance(one, BaseParamScheduler))


def attached(scheduler: Any, event: Any = None) -> Any:
    def attach(training: Training) -> None:
        made = scheduler(training.optimizer)
        made.attach(training.trainer, *([event] if event else []))

    return attach


def early_stopping(training: Training) -> None:
    stopping = EarlyStopping(
        2, lambda engine: -engine.state.metrics["loss"], training.trainer, threshold=10.0
    )
    training.objects["evaluator"] = training.evaluate_with(stopping)


def plateau(training: Training) -> None:
    scheduler = ReduceLROnPlateauScheduler(
        training.optimizer, "loss", factor=0.5, patience=0, threshold=1.0
    )
    training.evaluate_with(scheduler)
    training.objects["plateau"] = scheduler


def everything(training: Training) -> None:
    """Attach one of each kind; the supervised trainer accumulates, with a scaler."""
    optimizer, trainer = training.optimizer, training.trainer
    create_lr_scheduler_with_warmup(
        CosineAnnealingScheduler(optimizer, "lr", 0.05, 0.0, 20), 0.0, 5
    ).attach(trainer)
    ExpStateScheduler(1.0, 0.9, "noise", save_history=True, create_new=True).attach(trainer)
    BatchSizeScheduler(training.loader, lambda epoch: [8, 4, 16, 8][epoch]).attach(trainer)
    EMAHandler(training.model, 0.05, 0.5, 15).attach(trainer)
    RunningAverage(output_transform=float).attach(trainer, "loss")
    stopping = EarlyStopping(3, lambda engine: -engine.state.metrics["loss"], trainer)
    evaluator = training.evaluate_with(stopping)
    saved: list[str] = []
    best = Checkpoint(
        {"model": training.model}, lambda _, name: saved.append(name), score_name="loss"
    )
    evaluator.add_event_handler(Events.COMPLETED, best)
    training.objects["evaluator"] = evaluator


def outputs(training: Training) -> None:
    store = EpochOutputStore()
    store.attach(training.trainer, "outputs")
    training.trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda engine: training.seen.append([float(loss) for loss in engine.state.outputs]),
    )


def state_schedule(kind: Any, *args: Any) -> Any:
    return attached(lambda optimizer: kind(*args, "noise", True, create_new=True))


PARTS: dict[str, Callable[[Training], Any]] = {
    "cosine": attached(lambda o: CosineAnnealingScheduler(o, "lr", 0.1, 0.0, 9, 1.5)),
    "cosine with a way back": attached(
        lambda o: CosineAnnealingScheduler(o, "lr", 0.1, 0.01, 5, warmup_duration=3)),
    "triangle": attached(lambda o: LinearCyclicalScheduler(o, "momentum", 0.9, 0.5, 6)),
    "pieces": attached(lambda o: PiecewiseLinear(o, "lr", [(0, 0.0), (9, 0.1), (25, 0.0)])),
    "function": attached(lambda o: LambdaScheduler(o, "lr", lambda step: 0.1 / (1 + step))),
    "groups": attached(lambda o: ParamGroupScheduler([
        PiecewiseLinear(o, "lr", [(0, 0.1), (20, 0.0)], param_group_index=0),
        CosineAnnealingScheduler(o, "momentum", 0.9, 0.5, 8, param_group_index=1)])),
    "in turn": attached(lambda o: ConcatScheduler([
        PiecewiseLinear(o, "lr", [(0, 0.0), (12, 0.1)]),
        LRScheduler(lr_scheduler.ExponentialLR(o, 0.9))], [12])),
    "warm-up": attached(lambda o: create_lr_scheduler_with_warmup(
        lr_scheduler.StepLR(o, 4, 0.5), 0.0, 13)),
    "torch's one cycle": attached(lambda o: LRScheduler(
        lr_scheduler.OneCycleLR(o, 0.02, total_steps=EPOCHS * BATCHES))),
    "torch's by epoch": attached(
        lambda o: LRScheduler(lr_scheduler.ExponentialLR(o, 0.5)), Events.EPOCH_STARTED),
    "cosine by epoch": attached(
        lambda o: CosineAnnealingScheduler(o, "lr", 0.02, 0.0, 3), Events.EPOCH_STARTED),
    "plateau": plateau,
    "noise": state_schedule(ExpStateScheduler, 1.0, 0.9),
    "noise by a function": state_schedule(LambdaStateScheduler, lambda step: 1 / (1 + step)),
    "noise in pieces": state_schedule(PiecewiseLinearStateScheduler, [(0, 1.0), (20, 0.0)]),
    "noise by stairs": state_schedule(StepStateScheduler, 1.0, 0.5, 4),
    "noise in steps": state_schedule(MultiStepStateScheduler, 1.0, 0.5, [3, 11, 12]),
    "batch size": lambda training: BatchSizeScheduler(
        training.loader, lambda epoch: [8, 4, 16, 8][epoch]).attach(training.trainer),
    "average": lambda training: EMAHandler(training.model, 0.1).attach(training.trainer),
    "average with warm-up": lambda training: EMAHandler(
        training.model, 0.05, 0.5, 15, "update").attach(training.trainer),
    "early stopping": early_stopping,
    "outputs": outputs,
    "clipping": lambda training: GradientClipping(
        training.optimizer, max_norm=0.1).attach(training.trainer),
    "accumulation": lambda training: None,
    "scaler": lambda training: None,
    "everything": everything,
}  # fmt: skip

TORCH: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.StepLR(o, 5, 0.5), lr_scheduler.ExponentialLR(o, 0.95)]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 12),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 13),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 6, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.05, 4, cycle_momentum=True),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 12),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3, 11, 12, 20], 0.5),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.95),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=EPOCHS * BATCHES),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 20, 2.0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 12), lr_scheduler.CosineAnnealingLR(o, 10)], [12]),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
}  # fmt: skip
PARTS |= {f"torch's {name}": attached(lambda o, f=make: LRScheduler(f(o)))
          for name, make in TORCH.items()}  # fmt: skip


def compare(
    part: str, folder: Path, workers: tuple[int, int] = (0, 0), at: tuple[int, ...] = (1, 11, 14)
) -> None:
    """Train in one go with some workers; then, from what was saved on the way, with others."""
    whole = Training(part, workers[0], seed=0)
    seen_before: dict[int, int] = {}

    def save(iteration: int) -> None:
        whole.state.save(folder / f"{iteration}.pt")
        seen_before[iteration] = len(whole.seen)

    for iteration in at:
        at_it = Events.ITERATION_COMPLETED(once=iteration)
        whole.trainer.add_event_handler(at_it, functools.partial(save, iteration))
    whole.run()
    expected = plain(whole.state.state_dict())
    for iteration in at:
        resumed = Training(part, workers[1], seed=99)
        resumed.state.resume(folder / f"{iteration}.pt")
        resumed.run()
        assert resumed.seen == whole.seen[seen_before[iteration] :]
        # All that a further save holds is the same: weights, moments, averages, positions,
        # histories, metrics, random states.
        assert plain(resumed.state.state_dict()) == expected


def plain(value: Any) -> Any:
    """Return a state with lists for tensors, so that it can be compared."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return (value.dtype, value.tolist()) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("part", PARTS)
def test_resumed_equals_uninterrupted(part: str, tmp_path: Path) -> None:
    # The first iteration, the middle of an epoch and of a window, an epoch's last iteration.
    compare(part, tmp_path)


@pytest.mark.parametrize("workers", [(2, 2), (0, 2), (2, 0)])
def test_resumed_equals_uninterrupted_whatever_the_number_of_workers(
    workers: tuple[int, int], tmp_path: Path
) -> None:
    compare("everything", tmp_path, workers, at=(11,))


def test_no_schedule_is_forgotten() -> None:
    tried = {type(one) for part in PARTS for one in Training(part, 0, seed=0).schedules()}
    exported = {getattr(cookfire.handlers, name) for name in cookfire.handlers.__all__}
    schedules = {
        one for one in exported if inspect.isclass(one) and issubclass(one, BaseParamScheduler)
    }
    assert {one.__name__ for one in schedules - tried if not inspect.isabstract(one)} == {
        "CyclicalScheduler"  # the base of two that are tried
    }
    of_torch = {
        name
        for name, one in vars(lr_scheduler).items()
        if inspect.isclass(one)
        and issubclass(one, lr_scheduler.LRScheduler)
        and not name.startswith("_")
    }
    assert of_torch - set(TORCH) == {"LRScheduler", "ReduceLROnPlateau"}


def test_what_is_compared_is_not_trivial() -> None:
    training = Training("early stopping", 0, seed=0)
    training.run()
    assert training.trainer.state.epoch == 3  # it has stopped
    plateau_training = Training("plateau", 0, seed=0)
    plateau_training.run()
    assert plateau_training.optimizer.param_groups[0]["lr"] < 0.05
