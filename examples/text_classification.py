"""Tell positive reviews of films from negative ones, by convolutions over words (TextCNN).

    python examples/text_classification.py           # IMDB's 25,000 reviews in data/imdb
    python examples/text_classification.py --tiny    # 600 made-up ones in data/tiny_imdb, seconds

A tenth of the training reviews is held out: training stops when they are judged no better for three
epochs, and the weights that judged them best are tested. The net is that of Y. Kim, Convolutional
Neural Networks for Sentence Classification (2014): filters over windows of words, the largest
answer of each wherever it is in the review, and one linear layer.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from cookfire import distributed as idist
from cookfire.engine import Events, create_supervised_evaluator, create_supervised_trainer
from cookfire.handlers import Checkpoint, EarlyStopping, ProgressBar
from cookfire.metrics import Accuracy, Loss, RunningAverage

DATA = Path(__file__).resolve().parent.parent / "data"
PADDING, UNKNOWN = 0, 1  # the first two numbers of the vocabulary
Batch = tuple[Tensor, Tensor]  # words (B, T), labels (B,) of float: 1 for a positive review


def read(folder: Path, split: str) -> list[tuple[list[str], float]]:
    """Return the words and the label of each review, in a fixed order."""
    reviews = []
    for label, kind in enumerate(("neg", "pos")):
        for file in sorted((folder / "aclImdb" / split / kind).glob("*.txt")):
            text = file.read_text(encoding="utf-8").lower().replace("<br />", " ")
            reviews.append((re.findall(r"[a-z0-9']+|[!?]", text), float(label)))
    return reviews


class TextCNN(nn.Module):
    """Words (B, T) to logits (B,)."""

    def __init__(self, words: int, width: int = 100, windows: Sequence[int] = (2, 3, 4)) -> None:
        super().__init__()
        self.longest = max(windows)
        self.embedding = nn.Embedding(words, width, padding_idx=PADDING)
        self.filters = nn.ModuleList(nn.Conv1d(width, 100, window) for window in windows)
        self.last = nn.Sequential(nn.Dropout(), nn.Linear(100 * len(windows), 1))

    def forward(self, words: Tensor) -> Tensor:
        """Return the logits; a short review is padded to the longest window."""
        words = nn.functional.pad(words, (0, max(0, self.longest - words.shape[1])))
        x = self.embedding(words).transpose(1, 2)
        found = [filters(x).relu().amax(dim=2) for filters in self.filters]
        logits: Tensor = self.last(torch.cat(found, dim=1))
        return logits.squeeze(1)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train and test; return the test's metrics."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="on data/tiny_imdb")
    parser.add_argument("--data", type=Path, help="a folder with aclImdb in it")
    parser.add_argument("--epochs", type=int, default=10, help="at most (10)")
    arguments = parser.parse_args(argv)
    name = "tiny_imdb" if arguments.tiny else "imdb"
    folder = arguments.data or DATA / name
    if not (folder / "aclImdb").is_dir():
        parser.error(f"{folder} has no aclImdb; dvc repro data/dvc.yaml:{name} makes {DATA / name}")

    torch.manual_seed(0)
    device = idist.device()
    reviews, test = read(folder, "train"), read(folder, "test")
    counts = Counter(word for words, _ in reviews for word in words)
    number = {word: index for index, (word, _) in enumerate(counts.most_common(20_000), start=2)}

    def collate(items: Sequence[tuple[list[str], float]]) -> Batch:
        rows = [[number.get(word, UNKNOWN) for word in words[:400]] for words, _ in items]
        words = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        return words, torch.tensor([label for _, label in items])

    held_out, rest = reviews[::10], [one for index, one in enumerate(reviews) if index % 10]
    batch_size = 32 if arguments.tiny else 64
    training = idist.auto_dataloader(rest, batch_size=batch_size, shuffle=True, collate_fn=collate)
    validation = idist.auto_dataloader(held_out, batch_size=256, collate_fn=collate)

    model = idist.auto_model(TextCNN(words=len(number) + 2))
    optimizer = idist.auto_optim(torch.optim.Adam(model.parameters(), lr=1e-3))
    criterion = nn.BCEWithLogitsLoss()
    trainer = create_supervised_trainer(model, optimizer, criterion, device)
    metrics = {
        "accuracy": Accuracy(lambda output: (output[0] > 0, output[1])),
        "loss": Loss(criterion),
    }
    evaluator = create_supervised_evaluator(model, metrics, device)
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    progress = ProgressBar()
    progress.attach(trainer, ["loss"])

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        results = evaluator.run(validation).metrics
        progress.log_message(f"epoch {trainer.state.epoch}: " + described(results))

    with TemporaryDirectory() as saved:
        best = Checkpoint({"model": model}, saved, score_name="accuracy")
        patience = EarlyStopping(3, lambda engine: engine.state.metrics["accuracy"], trainer)
        evaluator.add_event_handler(Events.COMPLETED, best)
        evaluator.add_event_handler(Events.COMPLETED, patience)
        trainer.run(training, max_epochs=arguments.epochs)
        Checkpoint.load_objects({"model": model}, Path(saved) / str(best.last_checkpoint))

    # Other handlers than those of the validation, and so an evaluator of its own.
    tester = create_supervised_evaluator(model, metrics, device)
    tests = idist.auto_dataloader(test, batch_size=256, collate_fn=collate)
    results = dict(tester.run(tests).metrics)
    print("test: " + described(results))
    return results


def described(results: dict[str, float]) -> str:
    """Return metrics for reading."""
    return ", ".join(f"{name} {value:.4f}" for name, value in results.items())


if __name__ == "__main__":
    main()
