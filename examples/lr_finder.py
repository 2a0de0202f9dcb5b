"""Find a learning rate for MNIST before training, and train with it.

    python examples/lr_finder.py           # 60,000 digits in data/mnist
    python examples/lr_finder.py --tiny    # 1,437 digits in data/tiny_mnist, seconds

The learning rate grows from tiny to far too large within one run, after which everything is as it
was before. Suggested is where the loss fell most steeply; --out has the picture. The net is then
trained with the learning rate that was guessed and with the one that was found.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST

from cookfire import distributed as idist
from cookfire.engine import create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import FastaiLRFinder, ProgressBar
from cookfire.metrics import Accuracy

DATA = Path(__file__).resolve().parent.parent / "data"
GUESS = 1e-3


def read(folder: Path, train: bool) -> TensorDataset:
    """Return images (N, 1, 28, 28) from 0 to 1 with labels (N,)."""
    digits = MNIST(folder, train=train)
    return TensorDataset(digits.data.unsqueeze(1) / 255, digits.targets)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Search, and train twice; return the learning rate found, and both accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="on data/tiny_mnist")
    parser.add_argument("--data", type=Path, help="a folder with MNIST in it")
    parser.add_argument("--out", type=Path, default=Path("lr_finder.png"), help="(lr_finder.png)")
    arguments = parser.parse_args(argv)
    name = "tiny_mnist" if arguments.tiny else "mnist"
    folder = arguments.data or DATA / name
    if not (folder / "MNIST").is_dir():
        parser.error(f"{folder} has no MNIST; dvc repro data/dvc.yaml:{name} makes {DATA / name}")

    torch.manual_seed(0)
    device = idist.device()
    batch_size = 16 if arguments.tiny else 64
    training = idist.auto_dataloader(read(folder, True), batch_size=batch_size, shuffle=True)
    test = idist.auto_dataloader(read(folder, False), batch_size=500)
    model = idist.auto_model(
        nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
        )
    )  # fmt: skip
    optimizer = idist.auto_optim(torch.optim.SGD(model.parameters(), lr=GUESS, momentum=0.9))
    trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss(), device)
    evaluator = create_supervised_evaluator(model, {"accuracy": Accuracy()}, device)
    ProgressBar().attach(trainer, output_transform=lambda loss: {"loss": loss})

    finder = FastaiLRFinder()
    to_restore = {"model": model, "optimizer": optimizer}
    with finder.attach(
        trainer, to_restore, num_iter=min(300, 3 * len(training)), start_lr=1e-5, end_lr=10.0
    ) as search:
        search.run(training)
    finder.plot(fname=str(arguments.out))
    finder.apply_suggested_lr(optimizer)
    found = optimizer.param_groups[0]["lr"]
    print(f"suggested: {found:.2g}; {arguments.out} shows the loss of all")

    beginning = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    results = {"lr": found}
    for what, lr in (("guessed", GUESS), ("found", found)):
        model.load_state_dict(beginning[0])
        optimizer.load_state_dict(beginning[1])
        optimizer.param_groups[0]["lr"] = lr
        trainer.run(training, max_epochs=1)
        results[what] = evaluator.run(test).metrics["accuracy"]
        print(f"after an epoch with the one {what}, {lr:.2g}: accuracy {results[what]:.4f}")
    return results


if __name__ == "__main__":
    main()
