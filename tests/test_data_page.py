"""The commands of docs/data.md, run as they stand there on the tiny cell of MNIST."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.s3_server import serving

pytestmark = pytest.mark.filterwarnings(
    # Of the server and of what reaches it, not ours.
    "ignore::DeprecationWarning:(botocore|moto|werkzeug).*",
    "ignore::ResourceWarning",
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "data.md"
CELL = "recipes/mnist/dvc.yaml:evaluate@tiny"
BUCKET = "my-bucket"


def commands(heading: str) -> list[str]:
    """Return the blocks of commands under a heading of the page."""
    (section,) = re.findall(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text())
    blocks: list[str] = re.findall(r"(?ms)^```sh\n(.*?)^```", section)
    assert blocks, heading
    return blocks


class Clone:
    """A clone of this repository, and the place of the page's addresses beside it."""

    def __init__(self, root: Path, endpoint: str = "") -> None:
        self.root, self.endpoint = root, endpoint
        self.storage = root.parent / "storage"

    def run(self, block: str, folder: Path | None = None) -> str:
        """Return what a block of commands says; they must all succeed."""
        for address, here in (
            ("/mnt/storage", str(self.storage)),
            ("https://example.org/cookfire.git", str(self.root)),
            ("https://s3.example.org", self.endpoint),
            # What is published here is the tiny cell's.
            ("train@full", "train@tiny"),
        ):
            block = block.replace(address, here)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        done = subprocess.run(
            ["bash", "-ec", block], cwd=folder or self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        return done.stdout

    @property
    def weights(self) -> Path:
        return self.root / "recipes" / "mnist" / "runs" / "tiny" / "model.pt"

    def drop_cache(self) -> None:
        shutil.rmtree(self.root / ".dvc" / "cache")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the tiny cell of MNIST as the lock has it, and without a remote.

    What this repository's own cache holds is not run again.
    """
    clone = Clone(tmp_path_factory.mktemp("original") / "cookfire")
    clone.run(f"git clone --quiet {ROOT} {clone.root}", clone.root.parent)
    dvc_yaml = clone.root / "recipes" / "mnist" / "dvc.yaml"
    text = dvc_yaml.read_text()
    assert "path: runs/full/model.pt" in text
    # Of another size too: git may take files of one size and second for the same.
    dvc_yaml.write_text(text.replace("runs/full/model.pt\n", "runs/tiny/model.pt\n\n"))
    clone.run(
        f"""
        git config user.name A; git config user.email a@example.org
        dvc remote add --quiet --local --default here {ROOT / ".dvc" / "cache"}
        dvc repro --quiet --pull {CELL}
        dvc remote remove --quiet --local here
        git add --all; git commit --quiet --message "a tiny baseline"
        """
    )
    return clone.root


@pytest.fixture
def clone(original: Path, tmp_path: Path) -> Clone:
    shutil.copytree(original, tmp_path / "cookfire", symlinks=True)
    return Clone(tmp_path / "cookfire")


@pytest.fixture
def stored(clone: Clone) -> Clone:
    """The clone after its files were pushed to a folder."""
    (block,) = commands("A folder that machines share")
    assert re.search(r"(?m)^\d+ files pushed$", clone.run(block))
    return clone


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as address:
        client = boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1",
            aws_access_key_id="a", aws_secret_access_key="b",
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        yield address


def check_fresh_clone(clone: Clone, configuration: str = "true") -> None:
    """Assert that a fresh clone gets everything and runs nothing."""
    (block,) = commands("A fresh clone")
    here = clone.root.parent
    get, enter, pull = block.strip().splitlines()
    said = clone.run("\n".join([get, enter, configuration, pull]), here)
    assert "Pulling data for stage: 'data/dvc.yaml:tiny_mnist'" in said
    assert "Running stage" not in said
    assert said.strip().endswith("Data and pipelines are up to date.")
    fresh = Clone(here / "fresh")
    assert fresh.weights.read_bytes() == clone.weights.read_bytes()
    assert fresh.run("git status --porcelain") == ""


def test_a_fresh_clone_gets_all_from_a_folder_and_runs_nothing(stored: Clone) -> None:
    check_fresh_clone(stored)


def test_a_fresh_clone_gets_all_from_s3_and_runs_nothing(clone: Clone, endpoint: str) -> None:
    clone.endpoint = endpoint
    (block,) = commands("S3, or what speaks its language")
    assert re.search(r"(?m)^\d+ files pushed$", clone.run(block))
    assert endpoint not in (clone.root / ".dvc" / "config").read_text()
    configure = next(line for line in block.splitlines() if "endpointurl" in line)
    check_fresh_clone(clone, configure)


def test_a_published_baseline_comes_back_by_its_version(stored: Clone) -> None:
    publish, get = commands("A published baseline")
    bare = stored.root.parent / "origin.git"
    stored.run(f"git clone --quiet --bare . {bare}; git remote set-url origin {bare}")
    stored.run(publish)
    # What has come since is not what was published.
    published = stored.weights.read_bytes()
    stored.run("git rm --quiet --cached recipes/mnist/dvc.lock; git commit --quiet -m gone")
    elsewhere = stored.root.parent / "elsewhere"
    elsewhere.mkdir()
    Clone(bare).run(get, elsewhere)
    assert (elsewhere / "mnist.pt").read_bytes() == published


def test_after_an_interruption_the_outs_of_before_come_back(clone: Clone) -> None:
    back, *_ = commands("When something went wrong")
    runs = clone.weights.parent
    before = {path.name: path.read_bytes() for path in runs.iterdir()}
    shutil.rmtree(runs)  # as DVC does before it runs a stage
    (clone.root / "recipes" / "mnist" / "dvc.lock").write_text("")
    clone.run(back)
    assert {path.name: path.read_bytes() for path in runs.iterdir()} == before


def test_a_lost_cache_comes_back_from_the_remote_or_from_the_working_tree(stored: Clone) -> None:
    _, pull, commit, _ = commands("When something went wrong")
    digest = hashlib.md5(stored.weights.read_bytes()).hexdigest()
    cached = stored.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    stored.drop_cache()
    stored.run(pull)
    assert cached.read_bytes() == stored.weights.read_bytes()
    stored.drop_cache()
    assert "not in cache" in stored.run(commit)
    assert cached.read_bytes() == stored.weights.read_bytes()
    assert stored.run("git status --porcelain") == ""


def test_what_the_working_tree_needs_survives_making_room(clone: Clone) -> None:
    *_, collect = commands("When something went wrong")
    cache = clone.root / ".dvc" / "cache" / "files" / "md5"
    (cache / "00").mkdir(exist_ok=True)
    needless = cache / "00" / ("0" * 30)
    needless.write_text("of another branch")
    clone.run(collect)
    assert not needless.exists()
    clone.weights.unlink()
    clone.run("dvc checkout recipes/mnist/dvc.yaml:train@tiny")
    assert clone.weights.exists()
