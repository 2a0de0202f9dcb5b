"""What the tests run on XLA, and the same on the CPU: nothing here names a device."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

import cookfire.distributed as idist
from cookfire.engine import (
    Engine,
    Events,
    create_supervised_evaluator,
    create_supervised_trainer,
)
from cookfire.engine.deterministic import keep_random_state
from cookfire.engine.utils import manual_seed
from cookfire.handlers import Checkpoint, TerminateOnNan
from cookfire.metrics import (
    Accuracy,
    Average,
    ConfusionMatrix,
    EpochMetric,
    Fbeta,
    Loss,
    Precision,
    RunningAverage,
    TopKCategoricalAccuracy,
)

CLASSES = 10


def images(count: int = 44) -> list[tuple[Tensor, int]]:
    """Noise with a bright square whose place is the class."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for index in range(count):
        image, label = torch.randn(1, 8, 8, generator=generator), index % CLASSES
        image[0, label // 4 * 2 : label // 4 * 2 + 2, label % 4 * 2 : label % 4 * 2 + 2] += 3
        pairs.append((image, label))
    return pairs


def net(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8 * 36, CLASSES),
    )


def loader(batch_size: int = 16) -> DataLoader[Any]:
    """Batches of 16, 16 and 12 images; 12 are no multiple of 8."""
    return idist.auto_dataloader(images(), batch_size=batch_size, shuffle=True, seed=3)


def trainer_of(model: nn.Module, **options: Any) -> tuple[Engine, SGD]:
    optimizer = idist.auto_optim(SGD(model.parameters(), lr=0.05, momentum=0.9))
    criterion = nn.CrossEntropyLoss()
    return create_supervised_trainer(
        model, optimizer, criterion, idist.device(), **options
    ), optimizer


def losses(epochs: int = 2) -> list[float]:
    """The loss of each step, with a last batch that devices can't share equally."""
    trainer, _ = trainer_of(idist.auto_model(net()))
    seen: list[Tensor] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output))
    trainer.run(loader(), max_epochs=epochs)
    return [float(loss) for loss in seen]


def metrics() -> dict[str, Any]:
    """What each metric says of an untrained net."""
    model = idist.auto_model(net())
    criterion = nn.CrossEntropyLoss()
    evaluator = create_supervised_evaluator(
        model,
        {
            "accuracy": Accuracy(),
            "average": Average(output_transform=lambda output: output[0].amax(1).mean()),
            "confusion": ConfusionMatrix(CLASSES),
            "epoch": EpochMetric(_chosen_scores, check_compute_fn=False),
            "f1": Fbeta(1.0),
            "loss": Loss(criterion),
            "precision": Precision(average="macro"),
            "running": RunningAverage(output_transform=lambda output: criterion(*output)),
            "top3": TopKCategoricalAccuracy(3),
        },
        idist.device(),
    )
    batches = idist.auto_dataloader(images(), batch_size=16, shuffle=False)
    read = [_reads()]
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: read.append(_reads()))
    result = dict(evaluator.run(batches).metrics)
    assert len(set(read)) == 1, f"the host read from the device in an iteration: {read}"
    return result


def _chosen_scores(y_pred: Tensor, y: Tensor) -> float:
    return float(y_pred.gather(1, y[:, None]).mean())


def _reads() -> int:
    """How often the host has read from XLA's devices so far."""
    if idist.backend() != "xla":
        return 0
    from torch_xla.debug.metrics import metric_data

    transfers = metric_data("TransferFromDeviceTime")
    return transfers[0] if transfers else 0


def half_precise() -> dict[str, Any]:
    """Train in bfloat16; the dtype of what the net puts out, the first and the last loss."""
    dtypes = set()

    def note(x: Tensor, y: Tensor, y_pred: Tensor, loss: Tensor) -> Tensor:
        dtypes.add(y_pred.dtype)
        return loss.detach()

    trainer, _ = trainer_of(
        idist.auto_model(net()),
        amp_mode="amp",
        amp_dtype=torch.bfloat16,
        output_transform=note,
    )
    seen: list[float] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(float(e.state.output)))
    trainer.run(loader(22), max_epochs=4)
    return {"dtypes": dtypes, "first": seen[0], "last": seen[-1]}


def save(folder: Path) -> dict[str, Tensor]:
    """Train and save by the handler; the weights as this process had them."""
    model = idist.auto_model(net())
    trainer, optimizer = trainer_of(model)
    handler = Checkpoint({"model": model, "optimizer": optimizer}, folder, n_saved=1)
    trainer.add_event_handler(Events.COMPLETED, handler)
    trainer.run(loader(), max_epochs=1)
    return {name: value.cpu() for name, value in model.state_dict().items()}


def load(path: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Load such a checkpoint here; the weights, and a buffer of the optimizer."""
    model = idist.auto_model(net())
    _, optimizer = trainer_of(model)
    Checkpoint.load_objects({"model": model, "optimizer": optimizer}, path)
    weights = {name: value.cpu() for name, value in model.state_dict().items()}
    buffer = optimizer.state[next(model.parameters())]["momentum_buffer"]
    assert buffer.device.type == idist.device().type
    return weights, buffer.cpu()


def resumed() -> tuple[list[float], list[float]]:
    """The losses of a run with dropout, and of one that went on from its middle."""
    from cookfire.handlers import RunState

    def run(state: dict[str, Any] | None) -> tuple[list[float], dict[str, Any]]:
        manual_seed(7)
        model = idist.auto_model(net(dropout=0.5))
        trainer, optimizer = trainer_of(model)
        everything = RunState(trainer, model=model, optimizer=optimizer)
        seen: list[Tensor] = []
        saved: dict[str, Any] = {}
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output))
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED(once=2),
            lambda: saved.update(_through_a_file(everything.state_dict())),
        )
        if state is not None:
            manual_seed(8)
            everything.load_state_dict(state)
        trainer.run(loader(), max_epochs=2)
        return [float(loss) for loss in seen], saved

    whole, saved = run(None)
    rest, _ = run(saved)
    return whole, rest


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    from tempfile import TemporaryDirectory

    from cookfire.handlers._files import load_file, save_file

    with TemporaryDirectory() as folder:
        save_file(state, Path(folder) / "state.pt")
        return load_file(Path(folder) / "state.pt")


def stopped_by_nan() -> int:
    """The iteration at which a run ends whose fourth loss is not finite."""
    where = idist.device()
    engine = Engine(lambda _, b: torch.tensor(math.nan if b == 4 else 1.0, device=where))
    engine.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=3))
    return engine.run(range(1, 20)).iteration


def random_states() -> None:
    """Seeding decides what the device draws, and a function can leave it as it was."""
    where = idist.device()

    def draw() -> list[float]:
        return torch.rand(3, device=where).tolist()

    manual_seed(5)
    first = draw()
    kept = keep_random_state(draw)()
    second = draw()
    manual_seed(5)
    assert draw() == first
    assert draw() == kept == second
    assert first != second


def refused() -> list[str]:
    """What is said of things that can't be."""
    said: list[str] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except (RuntimeError, ValueError) as error:
            said.append(str(error))
        assert idist.backend() is None

    # Autograd begins before torch_xla is imported.
    net()(torch.zeros(1, 1, 8, 8)).sum().backward()
    assert "torch_xla" not in sys.modules
    attempt(lambda: idist.initialize("xla"))
    attempt(lambda: idist.Parallel("xla", nproc_per_node=2))
    os.environ.update(RANK="0", WORLD_SIZE="2")
    attempt(lambda: idist.initialize("xla"))
    return said


def orphaned_parameters() -> str:
    """What is said of an optimizer that was made before its model moved."""
    optimizer = SGD((model := net()).parameters(), lr=0.1)
    idist.auto_model(model)
    try:
        idist.auto_optim(optimizer)
    except ValueError as error:
        return str(error)
    return "nothing"


EVERYTHING: dict[str, Callable[[], Any]] = {
    "losses": losses,
    "metrics": metrics,
    "half_precise": half_precise,
    "resumed": resumed,
    "stopped_by_nan": stopped_by_nan,
}


def on_all_devices(saved_on_cpu: Path, folder: Path) -> dict[str, Any]:
    """All of the above in one process, since starting one and compiling take seconds."""
    results: dict[str, Any] = {}
    with idist.Parallel("xla-tpu") as parallel:  # ignite's name of it
        parallel.run(lambda _: results.update(_everything(saved_on_cpu, folder)))
    assert idist.backend() is None
    return results


def _everything(saved_on_cpu: Path, folder: Path) -> dict[str, Any]:
    random_states()
    results = {name: function() for name, function in EVERYTHING.items()}
    results["saved"] = save(folder)
    results["loaded"] = load(saved_on_cpu)
    results["orphaned_parameters"] = orphaned_parameters()
    results["config"] = {
        "backend": idist.backend(),
        "model_name": idist.model_name(),
        "place": idist.utils.get_world_size(),
        "device": str(idist.device()),
        "devices": idist.xla.describe(),
        "collectives": (idist.all_reduce(3), idist.all_gather("a"), idist.broadcast(0.5)),
    }
    return results
