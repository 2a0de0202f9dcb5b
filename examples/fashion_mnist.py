"""Name the clothes of Fashion-MNIST by a convolutional net.

    python examples/fashion_mnist.py           # 60,000 images in data/fashion_mnist
    python examples/fashion_mnist.py --tiny    # 1,200 drawn ones in data/tiny_fashion_mnist

The learning rate rises and falls again in one cycle. After the last epoch the test images are
measured, and those classes named that are mistaken for one another most often.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.datasets import FashionMNIST

from cookfire import distributed as idist
from cookfire.engine import Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import PiecewiseLinear, ProgressBar
from cookfire.metrics import Accuracy, ConfusionMatrix, Loss, RunningAverage

DATA = Path(__file__).resolve().parent.parent / "data"


def read(folder: Path, train: bool) -> TensorDataset:
    """Return images (N, 1, 28, 28), about 0 with deviation 1, with labels (N,)."""
    data = FashionMNIST(folder, train=train)
    return TensorDataset((data.data.unsqueeze(1) / 255 - 0.286) / 0.353, data.targets)


def create_net() -> nn.Module:
    """Return a net of two convolutions and two linear layers: images to logits (B, 10)."""

    def block(inside: int, outside: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2)]

    head = [
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, 10),
    ]
    return nn.Sequential(*block(1, 32), *block(32, 64), *head)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train and test; return the test's accuracy and loss."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="on data/tiny_fashion_mnist")
    parser.add_argument("--data", type=Path, help="a folder with FashionMNIST in it")
    parser.add_argument("--epochs", type=int, help="(10, of --tiny 3)")
    parser.add_argument("--lr", type=float, default=0.1, help="the highest learning rate (0.1)")
    arguments = parser.parse_args(argv)
    name = "tiny_fashion_mnist" if arguments.tiny else "fashion_mnist"
    folder, epochs = (
        arguments.data or DATA / name,
        arguments.epochs or (3 if arguments.tiny else 10),
    )
    if not (folder / "FashionMNIST").is_dir():
        parser.error(f"{folder} has no FashionMNIST; dvc repro data/dvc.yaml:{name} makes it")

    torch.manual_seed(0)
    device = idist.device()
    batch_size = 32 if arguments.tiny else 128
    training = idist.auto_dataloader(read(folder, True), batch_size=batch_size, shuffle=True)
    test = idist.auto_dataloader(read(folder, False), batch_size=500)
    model = idist.auto_model(create_net())
    optimizer = idist.auto_optim(
        torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9, nesterov=True)
    )
    criterion = nn.CrossEntropyLoss()

    trainer = create_supervised_trainer(model, optimizer, criterion, device)
    steps = epochs * len(training)
    cycle = [(0, arguments.lr / 10), (steps // 4, arguments.lr), (steps, 0.0)]
    trainer.add_event_handler(Events.ITERATION_STARTED, PiecewiseLinear(optimizer, "lr", cycle))
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    progress = ProgressBar()
    progress.attach(trainer, ["loss"])

    metrics: dict[str, Any] = {"accuracy": Accuracy(), "loss": Loss(criterion)}
    evaluator = create_supervised_evaluator(model, metrics, device)
    ConfusionMatrix(10).attach(evaluator, "confusion")

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure() -> None:
        results = evaluator.run(test).metrics
        progress.log_message(
            f"epoch {trainer.state.epoch}: test accuracy {results['accuracy']:.4f}, "
            f"loss {results['loss']:.4f}"
        )

    trainer.run(training, max_epochs=epochs)

    results = dict(evaluator.state.metrics)
    mistaken: Tensor = results.pop("confusion").fill_diagonal_(0).flatten()  # true class by named
    for place in mistaken.argsort(descending=True)[:3].tolist():
        true, named = (FashionMNIST.classes[label] for label in divmod(place, 10))
        if mistaken[place]:
            print(f"{int(mistaken[place])} times {true} was called {named}")
    return results


if __name__ == "__main__":
    main()
