"""What the ranks of a group do in tests; apart from these, so that a process starts quickly."""

from __future__ import annotations

import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from cookfire.distributed import DataOrder, auto_dataloader
from cookfire.engine import Engine, Events, create_supervised_trainer
from cookfire.handlers import (
    BatchSizeScheduler,
    Checkpoint,
    CheckpointEvents,
    DiskSaver,
    Preemption,
    RunState,
    TerminateOnNan,
    TimeLimit,
    common,
    export_weights,
    load_weights,
)
from cookfire.handlers._files import load_file, save_file
from cookfire.metrics import Average
from tests.handlers.helpers import Memory, checkpoints, engine_at, model


class Sharded:
    """Behaves as torch's ZeroRedundancyOptimizer does, whose import takes seconds."""

    def __init__(self) -> None:
        self.mine = {f"of rank {dist.get_rank()}": 1}
        self.everything: dict[str, int] | None = None

    def consolidate_state_dict(self, to: int) -> None:
        """Bring the parts together on one rank."""
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self.mine)
        self.everything = parts[0] | parts[1] if dist.get_rank() == to else None

    def state_dict(self) -> dict[str, int]:
        """Return all parts, where they were brought together."""
        if self.everything is None:
            raise RuntimeError("not consolidated on this rank")
        return self.everything

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take this rank's part."""
        self.mine = {name: state[name] for name in self.mine}


def save_together(folder: str) -> dict[str, Any]:
    """Save in every way, and report what happened on this rank."""
    rank = dist.get_rank()
    seen: dict[str, Any] = {}
    net = DistributedDataParallel(model(1.0))
    optimizer = Sharded()

    # Both ranks call; the scores differ by rank, and the writing rank's decides.
    calls: list[str] = []
    checkpoint = Checkpoint(
        {"model": net, "optimizer": optimizer},
        Path(folder) / "sharded",
        score_name="acc",
        save_on_rank=1,
    )
    for ours in ([0.5, 0.9], [0.1, 0.2], [0.7, 0.1]):
        engine = engine_at(1, acc=ours[rank])
        engine.register_events(*CheckpointEvents)
        engine.add_event_handler(Checkpoint.SAVED_CHECKPOINT, lambda: calls.append("saved"))
        checkpoint(engine)
    seen["saved"] = (calls, checkpoint.state_dict())
    seen["files"] = checkpoints(Path(folder) / "sharded")

    # A plain function is called on one rank, a saver object on all.
    functions: list[str] = []
    Checkpoint({"model": net}, lambda _, filename: functions.append(filename))(engine_at(4))
    saver = Memory()
    Checkpoint({"model": net}, saver)(engine_at(4))
    seen["called"] = (functions, saver.calls)

    # An error of the rank that writes is raised on both.
    def fail(_: Any, filename: str) -> None:
        raise OSError(f"no room for {filename}")

    try:
        Checkpoint({"model": net}, fail)(engine_at(5))
    except Exception as error:  # which one is what the test looks at
        seen["error"] = f"{type(error).__name__}: {error}"

    DiskSaver(Path(folder) / "made by one", save_on_rank=1)
    dist.barrier()
    seen["made"] = (Path(folder) / "made by one").is_dir()

    Checkpoint.load_objects(
        {"model": net, "optimizer": optimizer}, Path(folder) / "sharded" / seen["files"][0]
    )
    return seen


class _Training:
    """A model with dropout, which draws other numbers on each rank."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed + dist.get_rank())
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        model = DistributedDataParallel(self.net)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = create_supervised_trainer(model, self.optimizer, nn.functional.mse_loss)
        self.noise: list[float] = []
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: self.noise.append(torch.rand(()).item())
        )
        Average(output_transform=float).attach(self.trainer, "loss")
        self.state = RunState(self.trainer, model=model, optimizer=self.optimizer)

    def run(self) -> None:
        """Run two epochs of three batches."""
        generator = torch.Generator().manual_seed(0)
        data = TensorDataset(
            torch.randn(12, 2, generator=generator), torch.randn(12, 1, generator=generator)
        )
        order = DataOrder(12, 4, shuffle=True)
        self.trainer.run(DataLoader(data, batch_sampler=order, generator=generator), max_epochs=2)

    def result(self, since: int) -> dict[str, Any]:
        """Return what this rank came to."""
        weights = [value.tolist() for value in self.net.state_dict().values()]
        loss = self.trainer.state.metrics["loss"]
        return {"noise": self.noise[since:], "weights": weights, "loss": loss}


def train_in_parts(folder: str) -> dict[str, Any]:
    """Train in one go, and again from what was saved in the middle of an epoch."""
    path = Path(folder) / "state.pt"

    def save() -> None:
        saved = whole.state.state_dict()
        if dist.get_rank() == 0:
            save_file(saved, path)
        dist.barrier()

    whole, part = _Training(0), _Training(5)
    torch.manual_seed(dist.get_rank())
    whole.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), save)
    whole.run()
    saved: Any = load_file(path)
    part.state.load_state_dict(saved)
    part.run()
    result = {"whole": whole.result(2), "resumed": part.result(0)}
    drawn = []
    for _ in range(2):
        part.state.load_state_dict(saved | {"ranks": saved["ranks"][:1]})
        drawn.append([torch.rand(1).item(), numpy.random.random(), random.random()])
    return result | {"of one": drawn, "at": part.trainer.state.iteration}


def meet_nan() -> tuple[int, int]:
    """Train where each rank meets nan at an iteration of its own; return where both stopped."""
    stopped = []
    for every in (10, 4):
        trainer = Engine(
            lambda engine, _: math.nan if engine.state.iteration + dist.get_rank() == 4 else 1.0
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(every=every))
        stopped.append(trainer.run([0] * 50).iteration)
    return stopped[0], stopped[1]


def look_at_uneven_data() -> str:
    """Return how TerminateOnNan refuses data of which one rank has a batch more."""
    trainer = Engine(lambda *_: 1.0)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan())
    try:
        trainer.run(auto_dataloader(range(21), batch_size=2))
    except ValueError as error:
        return str(error)
    return ""


def use_common_handlers(folder: str) -> dict[str, Any]:
    """Train with the usual handlers, attached on both ranks."""
    net = DistributedDataParallel(model())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    trainer, evaluator = Engine(lambda *_: float(dist.get_rank())), Engine(lambda *_: None)
    common.setup_common_training_handlers(
        trainer, to_save={"trainer": trainer, "model": net}, output_path=f"{folder}/all",
        save_every_iters=3, lr_scheduler=torch.optim.lr_scheduler.StepLR(sgd, 2),
        output_names=["loss"],
    )  # fmt: skip
    common.save_best_model_by_val_score(
        f"{folder}/best", evaluator, net, "score", n_saved=2, trainer=trainer
    )
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda engine: engine.state.metrics.update(score=trainer.state.epoch),
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    sgd.step()
    trainer.run([0] * 3, max_epochs=2)
    loss = trainer.state.metrics["loss"]
    return {
        "files": checkpoints(Path(folder) / "all"),
        "best": checkpoints(Path(folder) / "best"),
        "loss": loss,
    }


def stop_together() -> dict[str, int]:
    """Preempt one rank, and let time be up, in runs of all ranks."""
    saves: list[int] = []
    trainer = Engine(lambda *_: None)
    preemption = Preemption(lambda: saves.append(1), [signal.SIGUSR1], exits=False, every=3)
    preemption.attach(trainer)
    if dist.get_rank() == 1:
        trainer.add_event_handler(
            Events.ITERATION_STARTED(once=4), lambda: os.kill(os.getpid(), signal.SIGUSR1)
        )
    preempted = trainer.run([0] * 20).iteration
    assert preemption.received == signal.SIGUSR1
    trainer = Engine(lambda *_: None)
    limit = TimeLimit(100, every=3)
    if dist.get_rank() == 0:
        limit.start_time -= 1000
    trainer.add_event_handler(Events.ITERATION_COMPLETED, limit)
    out_of_time = trainer.run([0] * 20).iteration
    return {"preempted at": preempted, "saved": len(saves), "out of time at": out_of_time}


def change_batch_size() -> dict[str, Any]:
    """Train with a batch size that changes; return this rank's batches."""
    seen: list[list[int]] = []
    trainer = Engine(lambda _, batch: seen.append(batch.tolist()))
    loader = auto_dataloader(range(50), batch_size=4, shuffle=True)
    BatchSizeScheduler(loader, lambda epoch: 4 * 2**epoch).attach(trainer)
    trainer.run(loader, max_epochs=3)
    try:
        BatchSizeScheduler(loader, lambda _: 7)(None)
    except ValueError as error:
        text = str(error)
    return {"seen": seen, "error": text}


def publish_together(folder: str) -> dict[str, Any]:
    """Export a model that all ranks have, and one that they share; load it, sharded, on each."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(dist.get_rank())
    net = DistributedDataParallel(nn.Linear(3, 2))
    weights = [value.tolist() for value in net.module.state_dict().values()]
    export_weights(net, Path(folder) / "ddp.safetensors")
    sharded = nn.Linear(3, 2)
    fully_shard(sharded)
    load_weights(sharded, Path(folder) / "ddp.safetensors")
    export_weights(sharded, Path(folder) / "fsdp.safetensors")
    net = nn.Linear(3, 2)
    load_weights(net, Path(folder) / "fsdp.safetensors")
    try:
        export_weights(net, Path(folder) / "missing" / "ddp.safetensors")
    except (OSError, RuntimeError) as error:
        text = f"{type(error).__name__}: {error}"
    loaded = [value.tolist() for value in net.state_dict().values()]
    return {"weights": weights, "loaded": loaded, "error": text}


def keep_together(folder: str) -> dict[str, Any]:
    """Fail in the middle, and go on from before the newest file, which is damaged.

    One process alone goes on with what two have kept.
    """
    kept, for_one = Path(folder) / "run", Path(folder) / "for one"
    if dist.get_world_size() == 1:
        alone = _Training(5)
        assert alone.state.keep(for_one, signals=())
        begins = alone.trainer.state.iteration
        alone.run()
        return {"begins": begins, "ends": alone.trainer.state.iteration}

    def fail() -> None:
        raise ArithmeticError("as the test wished")

    whole, failing, part = _Training(0), _Training(0), _Training(5)
    torch.manual_seed(dist.get_rank())
    whole.run()
    failing.trainer.add_event_handler(Events.ITERATION_STARTED(once=6), fail)
    torch.manual_seed(dist.get_rank())
    failing.state.keep(kept, every=2, signals=())
    try:
        failing.run()
    except ArithmeticError:
        dist.barrier()
    if dist.get_rank() == 0:
        (kept / "state_4.pt").write_bytes(b"PK")
        for_one.mkdir()
        (for_one / "state_3.pt").write_bytes((kept / "state_3.pt").read_bytes())
    dist.barrier()
    assert part.state.keep(kept, every=2, signals=())
    begins = part.trainer.state.iteration
    part.run()
    try:
        part.state.save(kept / "missing" / "run.pt")
    except (OSError, RuntimeError) as error:
        text = f"{type(error).__name__}: {error}"
    return {
        "whole": whole.result(3), "resumed": part.result(0), "begins": begins, "error": text,
    }  # fmt: skip
