"""The PyTorch-Ignite introduction, run with Cookfire: the same scripts, the same printed lines.

The text is not part of this repository. ``COOKFIRE_INTRODUCTION`` names the file where it is at
hand; the packages' own tests cover the same behaviour always.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.warm import run_script

TEXT = os.environ.get("COOKFIRE_INTRODUCTION", "")
pytestmark = pytest.mark.skipif(
    not TEXT, reason="COOKFIRE_INTRODUCTION does not name the introduction's file"
)

IMPORT_ROOTS = {
    "ignite.contrib.engines.common": "cookfire.handlers.common",
    "ignite.contrib.handlers": "cookfire.handlers",
    "ignite.": "cookfire.",
}

# What a machine without a GPU, a network and a screen needs, by name.
QUICK_START = {
    # the device
    'device = "cuda"': 'device = "cpu"',
    'device="cuda"': 'device="cpu"',
    '.to("cuda")': '.to("cpu")',
    # the data set
    'MNIST("data", download=True, train=True, transform=transform)': ("digits(4)"),
    'MNIST("data", train=False, transform=transform)': "digits(1)",
    "from torchvision.datasets import MNIST": """
from PIL import Image
from sklearn.datasets import load_digits

def digits(times):
    images, labels = load_digits(return_X_y=True)
    images = [Image.fromarray((15 * image).reshape(8, 8).astype("uint8")) for image in images]
    images = [transform(image.resize((28, 28))) for image in images]
    pairs = list(zip(images, map(int, labels)))
    return times * pairs
""",
    # the time that drawing takes
    "figsize=(20, 20)": "figsize=(4, 4)",
}
TRAINING = {
    # missing names
    "# main.py": (
        "import torch\nfrom torch import optim\n"
        "resnet50 = lambda: torch.nn.Linear(1, 1)\n"
        "dataset = list(range(64))\n"
        "dist_configs = {}\nconfig = {'c': 12345}\n"
    ),
    "shuffle=True, **kwargs)": "shuffle=True)",
    # the device
    'backend = "nccl"': "backend = None",
    "num_workers=12": "num_workers=0",
}


class Snippet:
    """One block of code, and the indented lines that it prints according to the text."""

    def __init__(self, code: str, output: str) -> None:
        self.code, self.output = code, output

    def run(
        self, folder: Path, substitutions: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the code in a process of its own, in ``folder``."""
        code = self.code
        for old, new in (substitutions or {}).items():
            assert old in code, f"nothing to substitute: {old}"
            code = code.replace(old, new)
        script = folder / "main.py"
        script.write_text(code)
        done = run_script(script, {"MPLBACKEND": "agg"})
        assert done.returncode == 0, done.stderr
        return done


def snippets() -> list[Snippet]:
    """Return the text's blocks of Python, without the notebook's own commands."""
    text = Path(TEXT).read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^``` python\n(.*?)^```\n(.*?)(?=^```|^#|\Z)", text, re.M | re.S):
        code, after = match.groups()
        code = "\n".join(line for line in code.splitlines() if not line.startswith(("!", "%")))
        for old, new in IMPORT_ROOTS.items():
            code = re.sub(rf"\b(from|import) {re.escape(old)}", rf"\1 {new}", code)
        block = re.match(r"\n*((?:    .*\n|\n)+)", after)
        output = block.group(1) if block else ""
        output = "\n".join(line.removeprefix("    ") for line in output.splitlines()).strip("\n")
        found.append(Snippet(code, output))
    return found


def find(*words: str) -> Snippet:
    """Return the one snippet whose code has all the words."""
    (match,) = [item for item in snippets() if all(word in item.code for word in words)]
    return match


@pytest.mark.parametrize(
    "words",
    [
        ("event_filter=custom_event_filter",),
        ("EventEnum",),
        ("trainer.set_data(high_res_data)",),
        ('print("After 1st update, accuracy="',),
        ("error = 100.0 * (1.0 - acc)",),
    ],
    ids=["event filter", "custom events", "set_data", "accuracy", "composed metric"],
)
def test_a_snippet_prints_what_the_text_shows(words: tuple[str, ...], tmp_path: Path) -> None:
    snippet = find(*words)
    # A snippet may rely on the imports of the one before.
    snippet.code = "from cookfire.engine import Engine, Events\n" + snippet.code
    assert snippet.output
    assert snippet.run(tmp_path).stdout.strip() == snippet.output


def test_periodic_and_stacked_events_print_what_the_text_shows(tmp_path: Path) -> None:
    trainer = find("from cookfire.engine import Engine, Events", "lambda e, batch: None")
    for words in (("every=5", "every=10"), ("every=3", "last_event_name")):
        snippet = find(*words)
        snippet.code = trainer.code + "\n" + snippet.code
        assert snippet.output
        assert snippet.run(tmp_path).stdout.strip() == snippet.output


def test_the_quick_start_trains_and_logs(tmp_path: Path) -> None:
    blocks = snippets()
    (begin,) = [index for index, item in enumerate(blocks) if "class Net" in item.code]
    (end,) = [index for index, item in enumerate(blocks) if "tb_logger.close()" in item.code][:1]
    whole = Snippet("\n".join(item.code for item in blocks[begin : end + 1]), "")
    lines = whole.run(tmp_path, QUICK_START).stdout.splitlines()
    assert lines[0] == "Start training!"
    assert lines[-1] == "Training completed!"
    validation = [line for line in lines if line.startswith("Validation Results - Epoch: ")]
    training = [line for line in lines if line.startswith("  Training Results - Epoch: ")]
    number = r"\d\.\d\d"
    for epoch in range(1, 6):
        pattern = rf"{epoch}  Avg accuracy: {number} Avg loss: {number}"
        # 0 / 0, as in ignite, as long as a class was never predicted.
        f1 = number if epoch == 5 else f"({number}|nan)"
        assert re.search(pattern + f" Avg F1: {f1}$", validation[epoch - 1])
        assert re.search(pattern + "$", training[epoch - 1])
    output = tmp_path / "quick-start-mnist-output"
    assert len(list(output.glob("best_model_*_f1=0.*.pt"))) == 2
    assert list(output.glob("events.out.tfevents.*"))


def test_the_common_helpers_write_the_files_that_the_text_lists(tmp_path: Path) -> None:
    find("common.setup_common_training_handlers(").run(tmp_path)
    names = {
        folder: sorted(path.name for path in (tmp_path / folder).glob("*.pt"))
        for folder in ("checkpoints", "best_models")
    }
    assert names["checkpoints"] == ["training_checkpoint_50.pt"]
    assert len(names["best_models"]) == 2
    for name in names["best_models"]:
        assert re.fullmatch(r"best_model_[1-5]_val_accuracy=[01]\.\d{4}\.pt", name)
    assert len(list((tmp_path / "tb_logs").glob("events.out.tfevents.*"))) == 1


def test_two_ranks_of_parallel_print_what_the_text_shows(tmp_path: Path) -> None:
    snippet = find("nproc_per_node", 'code = """')
    (inner,) = re.findall(r'code = """\n(.*?)"""', snippet.code, re.S)
    expected = [line for line in snippet.output.splitlines() if "run with config" in line]
    done = Snippet(inner.replace("import ignite.", "import cookfire."), "").run(tmp_path)
    assert sorted(done.stdout.splitlines()) == expected
    logged = re.sub(r"\S+ \S+ cookfire\.distributed\.launcher\.Parallel INFO: ", "", done.stderr)
    shown = re.sub(
        r"(?m)^.*ignite\.distributed\.launcher\.Parallel INFO: ", "", snippet.output
    ).splitlines()
    for line in shown:
        if "run with config" not in line and "Spawn function" not in line:
            assert line.strip() in logged
    assert re.search(r"Spawn function '<function training at 0x\w+>' in 2 processes", logged)


def test_the_training_that_adapts_to_any_configuration_runs(tmp_path: Path) -> None:
    snippet = find("idist.auto_dataloader", "idist.auto_optim")
    done = snippet.run(tmp_path, TRAINING)
    assert "0 : run with config: {'c': 12345} - backend= None" in done.stdout
