"""The data stages: fetching, checking, and the tiny data sets that are made here."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, MNIST

from data import _command, _folder, fetch, make_tiny_cifar10, make_tiny_mnist

FILES = {
    f"MNIST/raw/{split}-{kind}-ubyte": make_tiny_mnist.idx(np.full(shape, value, dtype=np.uint8))
    for value, split in enumerate(("train", "t10k"))
    for kind, shape in (("images-idx3", (1, 28, 28)), ("labels-idx1", (1,)))
}


def fill(folder: Path) -> Path:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``mnist`` be four files of a few bytes."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(fetch, "files_of", lambda name: hashes)


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A web server in place of torchvision's addresses, with the archives that are put here."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    resources = []
    for name, file in FILES.items():
        archive = folder / f"{Path(name).name}.gz"
        archive.write_bytes(gzip.compress(file, mtime=0))
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(MNIST, "resources", resources)
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield folder
        server.shutdown()
        thread.join()


@pytest.fixture
def no_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])


def test_a_mirror_is_copied_with_its_progress_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = fill(tmp_path / "mirror")
    (mirror / "other").write_text("not MNIST's")
    fetch.fetch("mnist", mirror, tmp_path / "mnist")
    assert content(tmp_path / "mnist") == FILES
    assert "100%" in capsys.readouterr().err


def test_an_older_folder_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "mnist" / "MNIST").mkdir(parents=True)
    (tmp_path / "mnist" / "MNIST" / "stale").write_text("")
    fetch.fetch("mnist", fill(tmp_path / "mirror"), tmp_path / "mnist")
    assert content(tmp_path / "mnist") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror", "mnist"]


def test_a_changed_file_in_the_mirror_is_refused_by_its_name_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    mirror = fill(tmp_path / "mirror")
    (mirror / "MNIST/raw/t10k-labels-idx1-ubyte").write_bytes(b"not those")
    with pytest.raises(_folder.DataError, match=r"mirror/MNIST/raw/t10k-labels-idx1-ubyte: sha256"):
        fetch.fetch("mnist", mirror, tmp_path / "mnist")
    assert [path.name for path in tmp_path.iterdir()] == ["mirror"]


@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("has_mirror", [False, True])
def test_without_the_files_in_a_mirror_they_are_downloaded_and_unpacked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], has_mirror: bool
) -> None:
    mirror = tmp_path / "mirror" if has_mirror else None
    fetch.fetch("mnist", mirror, tmp_path / "mnist")
    assert content(tmp_path / "mnist") == FILES
    reason = f"COOKFIRE_MIRROR has no {mirror}/MNIST" if mirror else "COOKFIRE_MIRROR is not set"
    assert reason in capsys.readouterr().err


def test_a_download_that_is_not_the_published_file_is_refused(
    tmp_path: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = upstream / "t10k-images-idx3-ubyte.gz"
    archive.write_bytes(gzip.compress(FILES["MNIST/raw/train-images-idx3-ubyte"], mtime=0))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    resources = [(name, md5 if name == archive.name else sum_) for name, sum_ in MNIST.resources]
    monkeypatch.setattr(MNIST, "resources", resources)
    with pytest.raises(_folder.DataError, match=r"t10k-images-idx3-ubyte: sha256 is .*, expected"):
        fetch.fetch("mnist", None, tmp_path / "mnist")
    assert not (tmp_path / "mnist").exists()


@pytest.mark.usefixtures("no_upstream")
def test_data_that_can_not_be_had_names_what_was_tried_and_both_ways_on(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    with pytest.raises(_folder.DataError) as caught:
        fetch.fetch("mnist", mirror, tmp_path / "mnist")
    text = str(caught.value)
    assert "\n" not in text
    assert f"COOKFIRE_MIRROR has no {mirror}/MNIST/raw/train-images-idx3-ubyte" in text
    assert "http://127.0.0.1" in text
    assert "set COOKFIRE_MIRROR to that folder" in text
    assert "run smoke/mnist" in text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_could_not_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    old = fill(tmp_path / "mnist")
    (tmp_path / ".mnist.partial").mkdir()  # of a process that was killed
    with pytest.raises(KeyboardInterrupt):
        _folder.replace_folder(old, fail)
    assert content(tmp_path) == {f"mnist/{name}": file for name, file in FILES.items()}
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]


@pytest.mark.usefixtures("no_upstream")
def test_the_stage_s_command_says_it_in_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COOKFIRE_MIRROR", str(tmp_path))
    monkeypatch.setattr(_command, "HERE", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        fetch.main(["mnist"])
    assert socket.getdefaulttimeout() is None
    trying, error = capsys.readouterr().err.splitlines()
    assert trying == f"mnist: COOKFIRE_MIRROR has no {tmp_path}/{next(iter(FILES))}; downloading"
    assert error.startswith("error: mnist can't be had: ")


def test_the_tiny_digits_are_scikit_learn_s_in_mnist_s_files(tmp_path: Path) -> None:
    make_tiny_mnist.write(tmp_path)
    original = load_digits()
    held_out = np.arange(1797) % 5 == 0
    for train, size, chosen in ((True, 1437, ~held_out), (False, 360, held_out)):
        digits = MNIST(tmp_path, train=train)
        assert digits.data.shape == (size, 28, 28)
        assert digits.targets.tolist() == original.target[chosen].tolist()
        small = digits.data[:, 3:27:3, 3:27:3].numpy()  # the centre of each block of 3x3
        np.testing.assert_array_equal(np.rint(small / 255 * 16), original.images[chosen])
        assert digits.data[:, :2].sum() == digits.data[:, -2:].sum() == 0
        assert np.bincount(digits.targets).min() > size / 15


def test_the_tiny_digits_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("once", "again"):
        make_tiny_mnist.write(tmp_path / name)
    assert content(tmp_path / "once") == content(tmp_path / "again")


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["there"], 2)])
def test_the_tiny_digits_are_not_written_for_a_question_or_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.setattr(_command, "HERE", tmp_path)
    with pytest.raises(SystemExit, match=str(code)):
        make_tiny_mnist.main(arguments)
    assert not list(tmp_path.iterdir())
    make_tiny_mnist.main([])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny_mnist"]


def test_changed_digits_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_digits()
    digits.target[0] = 1
    monkeypatch.setattr(make_tiny_mnist, "load_digits", lambda: digits)
    with pytest.raises(_folder.DataError, match=r"t10k-labels-idx1-ubyte: sha256 is"):
        make_tiny_mnist.write(tmp_path)


@pytest.mark.skipif(
    not (Path(os.environ.get("COOKFIRE_MIRROR") or "/nowhere") / "MNIST").is_dir(),
    reason="COOKFIRE_MIRROR holds no MNIST",
)
def test_the_real_digits_are_the_published_ones(tmp_path: Path) -> None:
    files = _folder.files_of("mnist")
    fetch.copy(Path(os.environ["COOKFIRE_MIRROR"]), files, tmp_path)
    training, validation = MNIST(tmp_path, train=True), MNIST(tmp_path, train=False)
    assert (len(training), len(validation)) == (60_000, 10_000)
    assert training.targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert round(training.data.float().mean().item() / 255, 4) == 0.1307


class TinyCifar(CIFAR10):
    """Torchvision's reader, told that other files than the published ones are meant."""

    def _check_integrity(self) -> bool:
        return True

    def _load_meta(self) -> None:
        self.classes = make_tiny_cifar10.CLASSES


def test_the_tiny_shapes_are_read_by_torchvision_as_cifar10(tmp_path: Path) -> None:
    make_tiny_cifar10.write(tmp_path)
    for train, size in ((True, 2000), (False, 500)):
        shapes = TinyCifar(tmp_path, train=train)
        assert shapes.data.shape == (size, 32, 32, 3)
        assert np.bincount(shapes.targets).tolist() == [size // 10] * 10
        # Red stands out in the warm classes, blue in the cold ones.
        warm = np.array(shapes.targets) < 5
        red, blue = (shapes.data[..., channel].mean((1, 2)) for channel in (0, 2))
        assert ((red > blue) == warm).mean() > 0.99


def test_the_tiny_shapes_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        make_tiny_cifar10.write(tmp_path / name)
    assert content(tmp_path / "once") == content(tmp_path / "again")


def test_a_download_leaves_the_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(root: Path, download: bool) -> None:
        assert download
        (root / "cifar-10-python.tar.gz").write_bytes(b"archive")
        fill(root)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", download)
    fetch.fetch("cifar10", None, tmp_path / "cifar10")
    assert content(tmp_path / "cifar10") == FILES


@pytest.mark.skipif(
    not (Path(os.environ.get("COOKFIRE_MIRROR") or "/nowhere") / "cifar-10-batches-py").is_dir(),
    reason="COOKFIRE_MIRROR holds no CIFAR-10",
)
def test_the_real_pictures_are_the_published_ones(tmp_path: Path) -> None:
    files = _folder.files_of("cifar10")
    fetch.copy(Path(os.environ["COOKFIRE_MIRROR"]), files, tmp_path)
    training, test = CIFAR10(tmp_path, train=True), CIFAR10(tmp_path, train=False)
    assert (len(training), len(test)) == (50_000, 10_000)
    assert (training.data.mean((0, 1, 2)) / 255).round(4).tolist() == [0.4914, 0.4822, 0.4465]
