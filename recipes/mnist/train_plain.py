"""Train MNIST's two-convolution net in plain PyTorch: the same weights, bit for bit.

    python -m recipes.mnist.train_plain --profile tiny --out DIR

This is ``train.py`` without Cookfire's engine, handlers and metrics, so that ``diff`` of the two
shows what these do, line by line. Data, net, parameters and command line are the recipe's own; of
Cookfire are the seeds and the order of the data, without which no two programs give equal bits,
and the choice of precision.
Left out is what would have to be written first: several processes, going on after an interruption,
the progress of an epoch, and MLflow.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.tensorboard import SummaryWriter

from cookfire.distributed import derive_seed, set_position
from cookfire.handlers import recipe

from .config import Config
from .data import CLASSES, Batch, load, prepare_batch
from .model import Net
from .pictures import draw_predictions


def train(config: Config, run: recipe.Run) -> dict[str, float]:
    """Train as ``config`` says, into the folders of ``run``; return the last validation metrics."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load(config, run.data)

    torch.manual_seed(config.seed)
    net = Net(config.dropout)
    torch.manual_seed(derive_seed(config.seed, 0, 0))
    model = net.to(device)
    if config.compile:
        model.compile()
    optimizer = SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    criterion = nn.NLLLoss()
    autocast, scaler = recipe.mixed_precision(config.precision, device)

    def train_step(batch: Batch) -> Tensor:
        x, y = prepare_batch(batch, device, non_blocking=True)
        with autocast:
            loss: Tensor = criterion(model(x), y)
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    @torch.no_grad()
    def evaluate(batches: Iterable[Batch]) -> dict[str, float]:
        model.eval()
        counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64, device=device)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        for batch in batches:
            x, y = prepare_batch(batch, device, non_blocking=True)
            y_pred = model(x)
            pairs = y * CLASSES + y_pred.argmax(dim=1)
            counts += pairs.bincount(minlength=CLASSES**2).view_as(counts)
            loss += criterion(y_pred, y) * len(y)
        right, labels, predictions = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
        f1 = 2 * right.double() / (labels + predictions).clamp(min=1)
        return {
            "accuracy": int(right.sum()) / int(counts.sum()),
            "loss": float(loss) / int(counts.sum()),
            "f1": float(f1.mean()),
        }

    best_f1 = float("-inf")
    table = ["epoch"]
    tensorboard = SummaryWriter(log_dir=str(run.logs))

    iteration = 0
    for epoch in range(1, config.epochs + 1):
        set_position(data.training, epoch, batch=0)
        model.train()
        for batch in data.training:
            loss = train_step(batch)
            iteration += 1
            if iteration % 100 == 0:
                tensorboard.add_scalar("training/batch_loss", loss, iteration)

        # At the end of each epoch: metrics of the training and of the validation images.
        results = {
            "training": evaluate(data.training_in_order),
            "validation": evaluate(data.validation),
        }

        for name, metrics in results.items():
            print(
                f"epoch {epoch} {name:>10}: accuracy {metrics['accuracy']:.4f}, "
                f"loss {metrics['loss']:.4f}, F1 {metrics['f1']:.4f}"
            )

        if results["validation"]["f1"] > best_f1:
            best_f1 = results["validation"]["f1"]
            run.save("best.pt", net.state_dict())

        row = {f"{tag}_{name}": results[tag][name] for tag in results for name in results[tag]}
        table[0] = "\t".join(["epoch", *row])
        table.append("\t".join(map(str, [epoch, *row.values()])))
        run.write("curves.tsv", lambda file: file.write(("\n".join(table) + "\n").encode()))
        for tag, metrics in results.items():
            for name, value in metrics.items():
                tensorboard.add_scalar(f"{tag}/{name}", value, epoch)

        images, labels = next(iter(data.validation))
        with torch.no_grad():
            log_probabilities = model(prepare_batch((images, labels), device)[0])
        figure = draw_predictions(images, labels, log_probabilities)
        tensorboard.add_figure("predictions", figure, epoch)

    tensorboard.close()
    run.save("model.pt", net.state_dict())
    return results["validation"]


if __name__ == "__main__":
    recipe.main(train, Config, __file__, resumable=False, owns_runs=False)
