"""What docs/reproducibility.md says of bits, on MNIST's tiny profile cut to one epoch.

What the other recipes' own tests show (workers, kills, two processes beside one) is linked there.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cookfire.handlers.recipe import _environment
from data import make_tiny_mnist
from tools.two_clones import make_turkish

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="instruction sets of x86-64"
)

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "recipes" / "mnist"
TINY = {**yaml.safe_load((SOURCE / "params.yaml").read_text())["tiny"], "epochs": 1}
PINNED: dict[str, str | int] = TINY["environment"]


class Checkout:
    """Holds the recipe, and the tiny data set, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "recipes" / "mnist"
        self.folder.mkdir(parents=True)
        for path in SOURCE.glob("*.py"):
            shutil.copy(path, self.folder)
        (root / "recipes" / "__init__.py").touch()
        (root / "data").mkdir()
        make_tiny_mnist.write(root / "data" / "tiny_mnist")
        self.profiles: dict[str, object] = {}

    def train(
        self, profile: str, variables: dict[str, str] | None = None, *, cpus: int | None = None,
        environment: dict[str, str | int] | None = None, **parameters: object,
    ) -> dict[str, bytes]:  # fmt: skip
        """Return the outs of a training.

        Args:
            profile: a new name.
            variables: the user's environment variables, beside this process's; None: what the
                profile pins, so that the command need not start itself once more.
            cpus: processors that it may use; None: those of this process.
            environment: what the profile pins, if not what `tiny` does.
            parameters: others than those of `tiny`.
        """
        pinned = environment or PINNED
        block = {**TINY, "mlflow": False, "environment": pinned, **parameters}
        self.profiles[profile] = block
        (self.folder / "params.yaml").write_text(json.dumps(self.profiles))
        inherited = {name: value for name, value in os.environ.items() if name not in PINNED}
        if variables is None:
            variables = {name: str(value) for name, value in pinned.items()}
        command = [sys.executable, "-m", "recipes.mnist.train", "--profile", profile]
        if cpus is not None:
            some = sorted(os.sched_getaffinity(0))[:cpus]
            command = ["taskset", "-c", ",".join(map(str, some)), *command]
        done = subprocess.run(
            command, cwd=self.root, env={**inherited, **variables}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        outputs = self.folder / "runs" / profile
        return {path.name: path.read_bytes() for path in outputs.iterdir()}

    def environment(self, profile: str) -> dict[str, str | int]:
        """Return what the run's manifest says that its bits depend on."""
        manifest = self.folder / "logs" / profile / "manifest.json"
        found: dict[str, str | int] = json.loads(manifest.read_text())["train"]["environment"]
        return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def pinned(checkout: Checkout) -> dict[str, bytes]:
    """What the pinned profile gives."""
    outs = checkout.train("pinned", {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"})
    assert {"model.pt", "best.pt", "curves.tsv"} <= outs.keys()
    return outs


def test_place_user_locale_time_zone_hash_seed_and_processors_change_no_bit(
    pinned: dict[str, bytes], tmp_path: Path
) -> None:
    elsewhere = Checkout(tmp_path / "another place")
    users = {
        "HOME": str(tmp_path), "USER": "somebody", "LOGNAME": "somebody", "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7", **make_turkish(tmp_path / "locale"),
    }  # fmt: skip
    cpus = 1 if shutil.which("taskset") else None
    assert elsewhere.train("pinned", users, cpus=cpus) == pinned


def test_what_the_user_set_for_threads_and_instruction_sets_does_not_matter_to_a_pinned_profile(
    checkout: Checkout, pinned: dict[str, bytes]
) -> None:
    users = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default",
             "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "AUTO"}  # fmt: skip
    assert checkout.train("users", users) == pinned


def test_another_instruction_set_gives_other_bits_and_the_manifest_tells_which(
    checkout: Checkout, pinned: dict[str, bytes]
) -> None:
    lower = {**PINNED, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    outs = checkout.train("lower", environment=lower)
    assert outs["model.pt"] != pinned["model.pt"]
    assert differing(checkout, "lower") == {"instruction_set", "onednn_isa"}


def test_two_threads_give_bits_of_their_own_each_time_the_same(
    checkout: Checkout, pinned: dict[str, bytes]
) -> None:
    two = {**PINNED, "OMP_NUM_THREADS": 2, "MKL_NUM_THREADS": 2}
    outs = checkout.train("threads", environment=two)
    assert checkout.train("threads_again", environment=two) == outs
    assert outs["model.pt"] != pinned["model.pt"]
    assert differing(checkout, "threads") == {"threads"}


def test_two_processes_give_bits_of_their_own(checkout: Checkout, pinned: dict[str, bytes]) -> None:
    # Each time the same: the locks of the recipes' cells `tiny_ddp` hold that.
    outs = checkout.train("processes", processes=2)
    assert outs["model.pt"] != pinned["model.pt"]
    assert differing(checkout, "processes") == {"world_size"}


def test_without_pins_the_same_machine_gives_the_same_bits(checkout: Checkout) -> None:
    free: dict[str, str | int] = {"OMP_NUM_THREADS": 1}
    outs = checkout.train("free", environment=free)
    assert checkout.train("free_again", environment=free) == outs


def differing(checkout: Checkout, profile: str) -> set[str]:
    """Return which entries of the environment differ from the pinned run's."""
    found, expected = checkout.environment(profile), checkout.environment("pinned")
    assert found.keys() == _environment.describe(world_size=1).keys()
    return {name for name in found if found[name] != expected[name]}
