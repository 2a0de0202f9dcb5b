"""Datasets of archives, Fashion-MNIST's and IMDB's, and their tiny twins."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from torchvision.datasets import FashionMNIST

from data import archive, make_tiny_fashion_mnist, make_tiny_imdb
from data._folder import DATASETS, DataError

RAW = "FashionMNIST/raw"
CLOTHES = {f"{RAW}/train-images.gz": b"images", f"{RAW}/train-labels.gz": b"labels"}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with small archives, and the description of what they must be."""
    described = yaml.safe_load(DATASETS.read_text())
    folder = tmp_path / "mirror"
    (folder / RAW).mkdir(parents=True)
    md5s = {}
    for path, content in CLOTHES.items():
        (folder / path).write_bytes(gzip.compress(content, mtime=0))
        md5s[path] = hashlib.md5((folder / path).read_bytes()).hexdigest()
    described["fashion_mnist"]["archives"] = md5s
    with tarfile.open(folder / "aclImdb_v1.tar.gz", "w:gz") as tar:
        for name in ("train/pos/0_9.txt", "train/unsup/0_0.txt", "test/neg/0_2.txt"):
            info = tarfile.TarInfo(f"aclImdb/{name}")
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    imdb = (folder / "aclImdb_v1.tar.gz").read_bytes()
    described["imdb"]["md5"] = hashlib.md5(imdb).hexdigest()
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(described))
    monkeypatch.setattr(archive, "DATASETS", tmp_path / "datasets.yaml")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def serve(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torchvision's downloads come from the mirror; return the addresses as they are asked."""
    asked: list[str] = []

    def download(url: str, root: Path, filename: str, md5: str) -> None:
        asked.append(url)
        (source,) = mirror.rglob(filename)
        assert hashlib.md5(source.read_bytes()).hexdigest() == md5
        (root / filename).parent.mkdir(parents=True, exist_ok=True)
        (root / filename).write_bytes(source.read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    return asked


def test_fashion_mnist_comes_from_a_mirror_in_torchvisions_layout(
    mirror: Path, tmp_path: Path
) -> None:
    archive.fetch("fashion_mnist", mirror, tmp_path / "fashion")
    expected = {path.removesuffix(".gz"): inside for path, inside in CLOTHES.items()}
    assert content(tmp_path / "fashion") == expected


def test_fashion_mnist_is_downloaded_where_the_mirror_lacks_one_of_its_files(
    mirror: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = serve(mirror, monkeypatch)
    half = tmp_path / "half" / RAW
    half.mkdir(parents=True)
    (half / "train-images.gz").write_bytes(b"")
    archive.fetch("fashion_mnist", tmp_path / "half", tmp_path / "fashion")
    assert f"has no {half / 'train-labels.gz'}; downloading" in capsys.readouterr().err
    assert content(tmp_path / "fashion").keys() == {name.removesuffix(".gz") for name in CLOTHES}
    site = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    assert asked == [f"{site}/train-images.gz", f"{site}/train-labels.gz"]


@pytest.mark.parametrize("path", CLOTHES)
def test_a_damaged_file_of_several_is_named(mirror: Path, tmp_path: Path, path: str) -> None:
    (mirror / path).write_bytes(b"damaged")
    with pytest.raises(DataError, match=rf"{path}: md5 is .*, expected .*; replace it, or unset"):
        archive.fetch("fashion_mnist", mirror, tmp_path / "fashion")
    assert not (tmp_path / "fashion").exists()


def test_what_is_no_gzip_is_said_to_be_damaged(tmp_path: Path) -> None:
    whole = gzip.compress(bytes(range(256)))
    for number, damaged in enumerate((b"no gzip", whole[:40], whole[:20] + b"?" * 60)):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{number}.gz: damaged, or no archive: "):
            archive.unpack(path, tmp_path)


@pytest.mark.parametrize("downloaded", [False, True])
def test_imdb_is_unpacked_without_the_reviews_that_have_no_label(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, downloaded: bool
) -> None:
    asked = serve(mirror, monkeypatch)
    archive.fetch("imdb", None if downloaded else mirror, tmp_path / "imdb")
    assert content(tmp_path / "imdb").keys() == {
        "aclImdb/train/pos/0_9.txt",
        "aclImdb/test/neg/0_2.txt",
    }
    url = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
    assert asked == [url] * downloaded


def test_what_can_not_be_had_names_the_example_that_needs_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    for name in ("imdb", "fashion_mnist"):
        with pytest.raises(DataError, match=r"or run examples/(\w+).py --tiny, which needs no"):
            archive.fetch(name, None, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_archives_of_fashion_mnist_are_those_that_torchvision_knows() -> None:
    described = yaml.safe_load(DATASETS.read_text())["fashion_mnist"]
    assert described["archives"] == {f"{RAW}/{name}": md5 for name, md5 in FashionMNIST.resources}
    assert f"{described['url']}/" in FashionMNIST.mirrors


def test_the_tiny_clothes_are_read_by_torchvision_as_fashion_mnist(tmp_path: Path) -> None:
    make_tiny_fashion_mnist.write(tmp_path)
    for train, size in ((True, 1200), (False, 300)):
        clothes = FashionMNIST(tmp_path, train=train)
        assert clothes.data.shape == (size, 28, 28)
        assert np.bincount(clothes.targets).tolist() == [size // 10] * 10
        # A bag covers more than trousers, and these more than a sandal.
        covered = (clothes.data > 0).float().mean((1, 2))
        bag, trouser, sandal = (covered[clothes.targets == label].mean() for label in (8, 1, 5))
        assert bag > trouser > sandal > 0


def test_the_tiny_reviews_have_opinions_that_their_folder_tells(tmp_path: Path) -> None:
    make_tiny_imdb.write(tmp_path)
    for split, count in make_tiny_imdb.COUNTS.items():
        for kind, words in (("pos", make_tiny_imdb.PRAISE), ("neg", make_tiny_imdb.BLAME)):
            files = list((tmp_path / "aclImdb" / split / kind).glob("*.txt"))
            assert len(files) == count // 2
            for file in files:
                text = file.read_text()
                opposite = make_tiny_imdb.BLAME if kind == "pos" else make_tiny_imdb.PRAISE
                assert all(f"is {word}." not in text for word in opposite)
                assert all(f"is not {word}." not in text for word in words)


@pytest.mark.parametrize("maker", [make_tiny_fashion_mnist, make_tiny_imdb])
def test_the_tiny_twins_are_the_same_bytes_each_time_and_hold_to_their_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: object
) -> None:
    for name in ("once", "again"):
        maker.write(tmp_path / name)
    assert content(tmp_path / "once") == content(tmp_path / "again")
    seeded = np.random.RandomState
    monkeypatch.setattr(np.random, "RandomState", lambda seed: seeded(seed + 1))
    with pytest.raises(DataError, match=r"sha256 is .*make_tiny_\w+.py changed"):
        maker.write(tmp_path / "other")
