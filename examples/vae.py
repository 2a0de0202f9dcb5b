"""Learn to draw clothes: a variational auto-encoder on Fashion-MNIST.

    python examples/vae.py           # 60,000 images in data/fashion_mnist
    python examples/vae.py --tiny    # 1,200 drawn ones in data/tiny_fashion_mnist, seconds

The encoder gives each image a Gaussian in a space of few dimensions, the decoder an image for a
point of it. The loss is the negative evidence lower bound of D. P. Kingma and M. Welling,
Auto-Encoding Variational Bayes (2013): how badly an image is rebuilt, and how far its Gaussian is
from the standard one. Pictures are in --out: images beside what is rebuilt of them, and new ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import FashionMNIST
from torchvision.utils import save_image

from cookfire import distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers import ProgressBar, TableLogger
from cookfire.metrics import Average, RunningAverage

DATA = Path(__file__).resolve().parent.parent / "data"
Parts = dict[str, Tensor]  # of the loss, each the mean over a batch's images, in nats


class VAE(nn.Module):
    """Images (B, 784) from 0 to 1 to logits (B, 784), means and log variances (B, dimensions)."""

    def __init__(self, dimensions: int = 20, width: int = 400) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, width), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(width, dimensions), nn.Linear(width, dimensions)
        self.decoder = nn.Sequential(nn.Linear(dimensions, width), nn.ReLU(), nn.Linear(width, 784))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rebuild images, from a point drawn from each one's Gaussian."""
        x = self.encoder(images)
        mean, log_variance = self.mean(x), self.log_variance(x)
        point = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(point), mean, log_variance


def negative_elbo(images: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> Parts:
    """Return the loss and its two parts."""
    rebuilding = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    parts = {"rebuilding": rebuilding / len(images), "divergence": divergence / len(images)}
    return {"loss": parts["rebuilding"] + parts["divergence"], **parts}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, draw, and return the metrics of the test images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="on data/tiny_fashion_mnist")
    parser.add_argument("--data", type=Path, help="a folder with FashionMNIST in it")
    parser.add_argument("--out", type=Path, default=Path("vae"), help="for pictures (vae)")
    parser.add_argument("--epochs", type=int, default=20, help="(20)")
    arguments = parser.parse_args(argv)
    name = "tiny_fashion_mnist" if arguments.tiny else "fashion_mnist"
    folder = arguments.data or DATA / name
    if not (folder / "FashionMNIST").is_dir():
        parser.error(f"{folder} has no FashionMNIST; dvc repro data/dvc.yaml:{name} makes it")
    arguments.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    device = idist.device()
    images = {
        split: FashionMNIST(folder, train=split == "training").data.flatten(1) / 255
        for split in ("training", "test")
    }
    batch_size = 32 if arguments.tiny else 128
    training = idist.auto_dataloader(images["training"], batch_size=batch_size, shuffle=True)
    test = idist.auto_dataloader(images["test"], batch_size=500)
    net = VAE()
    model = idist.auto_model(net)
    optimizer = idist.auto_optim(torch.optim.Adam(model.parameters(), lr=1e-3))

    def train_step(_: Engine, batch: Tensor) -> Parts:
        batch = batch.to(device)
        parts = negative_elbo(batch, *model(batch))
        optimizer.zero_grad()
        torch.autograd.backward(parts["loss"])
        optimizer.step()
        return {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def measuring_step(_: Engine, batch: Tensor) -> Parts:
        batch = batch.to(device)
        return negative_elbo(batch, *model(batch))

    trainer, evaluator = Engine(train_step), Engine(measuring_step)
    RunningAverage(output_transform=itemgetter("loss")).attach(trainer, "loss")
    for part in ("loss", "rebuilding", "divergence"):
        Average(itemgetter(part)).attach(evaluator, part)
    progress = ProgressBar()
    progress.attach(trainer, ["loss"])

    @trainer.on(Events.EPOCH_COMPLETED)
    def measure() -> None:
        metrics = evaluator.run(test).metrics
        text = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        progress.log_message(f"epoch {trainer.state.epoch}: {text}")

    points = torch.randn(64, 20).to(device)  # the same each time, so that pictures can be compared

    @trainer.on(Events.COMPLETED)
    @torch.no_grad()
    def draw() -> None:
        some = images["test"][:16].to(device)
        rows = torch.cat([some, net(some)[0].sigmoid()]).view(-1, 1, 28, 28)
        save_image(rows, arguments.out / "rebuilt.png", nrow=16)
        save_image(net.decoder(points).sigmoid().view(-1, 1, 28, 28), arguments.out / "new.png")

    with TableLogger(arguments.out / "curves.tsv") as curves:
        curves.attach_output_handler(
            evaluator,
            Events.COMPLETED,
            tag="test",
            metric_names="all",
            global_step_transform=lambda *_: trainer.state.epoch,
        )
        trainer.run(training, max_epochs=arguments.epochs)
    return dict(evaluator.state.metrics)


if __name__ == "__main__":
    main()
