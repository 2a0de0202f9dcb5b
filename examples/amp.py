"""Compare precisions of training: float32, bfloat16 and float16 by automatic mixed precision.

    python examples/amp.py           # 60,000 images in data/fashion_mnist, on a GPU if there is one
    python examples/amp.py --tiny    # 1,200 drawn ones in data/tiny_fashion_mnist, seconds

The same net is trained from the same weights in each precision. The table has its speed, the most
memory that it took, and its accuracy; what can't be compared on this machine is said below it.
float16 needs a scaled loss, since its small gradients would be zero, and so a GPU; bfloat16 does
not. A processor without instructions for bfloat16 is slower with it than without.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.datasets import FashionMNIST

from cookfire import distributed as idist
from cookfire.engine import Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import ProgressBar, Timer
from cookfire.metrics import Accuracy

DATA = Path(__file__).resolve().parent.parent / "data"
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Result(NamedTuple):
    """What a precision came to."""

    images_per_second: float  # of the last epoch: the first warms up
    peak_mb: float | None  # of the GPU's memory; None without one
    accuracy: float


def read(folder: Path, train: bool) -> TensorDataset:
    """Return images (N, 1, 28, 28), about 0 with deviation 1, with labels (N,)."""
    data = FashionMNIST(folder, train=train)
    return TensorDataset((data.data.unsqueeze(1) / 255 - 0.286) / 0.353, data.targets)


def create_net(width: int) -> nn.Module:
    """Return six convolutions, wide enough to keep a GPU busy, and a linear layer."""
    layers: list[nn.Module] = []
    inside = 1
    for stage in range(3):
        for stride in (1, 2):
            outside = width * 2**stage
            layers += [nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(outside), nn.ReLU()]
            inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def measure(precision: str, folder: Path, epochs: int, batch_size: int, width: int) -> Result:
    """Train in a precision, and test in float32."""
    torch.manual_seed(0)
    device = idist.device()
    on_gpu = device.type == "cuda"
    training = idist.auto_dataloader(
        read(folder, True), batch_size=batch_size, shuffle=True, drop_last=True
    )
    test = idist.auto_dataloader(read(folder, False), batch_size=500)
    model = idist.auto_model(create_net(width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    trainer = create_supervised_trainer(
        model,
        optimizer,
        nn.CrossEntropyLoss(),
        device,
        amp_mode=None if precision == "float32" else "amp",
        amp_dtype=PRECISIONS[precision],
        scaler=precision == "float16",
    )
    ProgressBar(desc=precision).attach(trainer, output_transform=lambda loss: {"loss": loss})
    if on_gpu:  # the clock must not stop before the work is done
        torch.cuda.reset_peak_memory_stats()
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: torch.cuda.synchronize())
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: torch.cuda.synchronize())
    timer = Timer()
    timer.attach(trainer, start=Events.EPOCH_STARTED, pause=Events.EPOCH_COMPLETED)
    trainer.run(training, max_epochs=epochs)
    images_per_second = len(training) * batch_size / timer.value()
    evaluator = create_supervised_evaluator(model, {"accuracy": Accuracy()}, device)
    accuracy = evaluator.run(test).metrics["accuracy"]
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    return Result(images_per_second, peak, accuracy)


def main(argv: Sequence[str] | None = None) -> dict[str, Result]:
    """Compare, print the table, and return its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="on data/tiny_fashion_mnist")
    parser.add_argument("--data", type=Path, help="a folder with FashionMNIST in it")
    parser.add_argument("--epochs", type=int, default=3, help="the last is timed (3)")
    arguments = parser.parse_args(argv)
    name = "tiny_fashion_mnist" if arguments.tiny else "fashion_mnist"
    folder = arguments.data or DATA / name
    if not (folder / "FashionMNIST").is_dir():
        parser.error(f"{folder} has no FashionMNIST; dvc repro data/dvc.yaml:{name} makes it")
    on_gpu = idist.device().type == "cuda"
    width, batch_size = (8, 32) if arguments.tiny else (64, 256)
    left_out = []
    if not on_gpu:
        left_out.append("float16: there is no GPU")
    elif not torch.cuda.is_bf16_supported(including_emulation=False):
        left_out.append("bfloat16: this GPU has no instructions for it")
    names = [one for one in PRECISIONS if not any(text.startswith(one) for text in left_out)]
    results = {one: measure(one, folder, arguments.epochs, batch_size, width) for one in names}

    print("precision  images/s  x float32  peak MB  accuracy")
    for one, (speed, peak, accuracy) in results.items():
        ratio = speed / results["float32"].images_per_second
        memory = "-" if peak is None else f"{peak:.0f}"
        print(f"{one:<9} {speed:>9.0f} {ratio:>10.2f} {memory:>8} {accuracy:>9.4f}")
    for text in left_out:
        print(f"not compared: {text}")
    return results


if __name__ == "__main__":
    main()
