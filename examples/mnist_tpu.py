"""Train MNIST on one core of a TPU, through XLA.

    python examples/mnist_tpu.py                           # 60,000 digits in data/mnist
    PJRT_DEVICE=CPU python examples/mnist_tpu.py --tiny    # on XLA's CPU, 1,437 in data/tiny_mnist

It needs torch_xla, see docs/xla.md, and was tried on XLA's CPU device only. What makes it a script
for a TPU is the backend "xla"; `--backend gloo` is the same training in one process on the CPU. XLA
compiles a graph for each shape of a batch: the first steps take long, and the last batch that
would have a shape of its own is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST

from cookfire import distributed as idist
from cookfire.engine import Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import ProgressBar
from cookfire.metrics import Accuracy, Loss

DATA = Path(__file__).resolve().parent.parent / "data"


def read(folder: Path, train: bool) -> TensorDataset:
    """Return images (N, 1, 28, 28), about 0 with deviation 1, with labels (N,)."""
    digits = MNIST(folder, train=train)
    return TensorDataset((digits.data.unsqueeze(1) / 255 - 0.1307) / 0.3081, digits.targets)


def create_net() -> nn.Module:
    """Return two convolutions and two linear layers: images to logits (B, 10)."""

    def block(inside: int, outside: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 5), nn.MaxPool2d(2), nn.ReLU()]

    head = [nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, 10)]
    return nn.Sequential(*block(1, 10), *block(10, 20), *head)


def train(_: int, folder: Path, epochs: int, batch_size: int) -> dict[str, float]:
    """Train and measure on the backend's device; return the test's metrics."""
    torch.manual_seed(0)
    device = idist.device()
    training = idist.auto_dataloader(
        read(folder, True), batch_size=batch_size, shuffle=True, drop_last=True
    )
    test = idist.auto_dataloader(read(folder, False), batch_size=120)
    # In this order: moving to XLA makes the parameters anew, and the optimizer needs the new ones.
    model = idist.auto_model(create_net())
    optimizer = idist.auto_optim(torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    criterion = nn.CrossEntropyLoss()
    trainer = create_supervised_trainer(model, optimizer, criterion, device)
    metrics = {"accuracy": Accuracy(), "loss": Loss(criterion)}
    evaluator = create_supervised_evaluator(model, metrics, device)
    # Without the loss: reading it from the device in each step would wait for the step to end.
    progress = ProgressBar()
    progress.attach(trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure() -> None:
        results = evaluator.run(test).metrics
        text = ", ".join(f"{name} {value:.4f}" for name, value in results.items())
        progress.log_message(f"epoch {trainer.state.epoch} on {device}: test {text}")

    trainer.run(training, max_epochs=epochs)
    return dict(evaluator.state.metrics)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train on the backend; return the test's metrics."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="on data/tiny_mnist")
    parser.add_argument("--data", type=Path, help="a folder with MNIST in it")
    parser.add_argument("--epochs", type=int, default=5, help="(5)")
    parser.add_argument("--backend", default="xla", choices=["xla", "gloo"], help="(xla)")
    arguments = parser.parse_args(argv)
    name = "tiny_mnist" if arguments.tiny else "mnist"
    folder = arguments.data or DATA / name
    if not (folder / "MNIST").is_dir():
        parser.error(f"{folder} has no MNIST; dvc repro data/dvc.yaml:{name} makes {DATA / name}")

    results: dict[str, float] = {}
    with idist.Parallel(backend=arguments.backend) as parallel:
        parallel.run(
            lambda rank: results.update(
                train(rank, folder, arguments.epochs, 32 if arguments.tiny else 128)
            )
        )
    return results


if __name__ == "__main__":
    main()
