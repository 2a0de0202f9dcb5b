"""Checkpoints in object stores: a real S3 server, memory, and file systems that only have files."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from cookfire.handlers import Checkpoint, DamagedCheckpoint, FsspecSaver, ModelCheckpoint
from cookfire.handlers import _object_store as object_store
from tests.handlers.helpers import engine_at, model
from tests.handlers.hostile import write_hostile
from tests.s3_server import serving

pytestmark = pytest.mark.filterwarnings(
    # Of the server and of what reaches it, not ours.
    "ignore::DeprecationWarning:(botocore|aiobotocore|moto|werkzeug|s3fs).*",
    "ignore::ResourceWarning",
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    options = {"endpoint_url": endpoint}
    bucket = f"runs-{secrets.token_hex(4)}"
    fsspec.filesystem("s3", **options).mkdir(bucket)
    return {"url": f"s3://{bucket}/first", **options}


@pytest.fixture(params=["s3", "memory", "file", "slow"])
def place(request: Any, tmp_path: Path) -> dict[str, Any]:
    """An address and its options, of each kind."""
    if request.param == "s3":
        found: dict[str, Any] = request.getfixturevalue("s3")
        return found
    if request.param == "file":
        return {"url": f"file://{tmp_path}/runs"}
    return {"url": f"{request.param}://runs/{secrets.token_hex(4)}"}


class Slow(MemoryFileSystem):
    """Has files, not objects: half of one can be seen while it is written."""

    protocol = "slow"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fails = 0
    seen: ClassVar[list[list[str]]] = []

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        """Write half of the file, then all of it, or fail."""
        content = Path(lpath).read_bytes()
        self.pipe_file(rpath, content[: len(content) // 2])
        Slow.seen.append([name.rsplit("/", 1)[-1] for name in self.store])
        if Slow.fails:
            Slow.fails -= 1
            raise ConnectionResetError("the line is down")
        self.pipe_file(rpath, content)


fsspec.register_implementation("slow", Slow, clobber=True)


def names(place: dict[str, Any]) -> list[str]:
    options = {name: value for name, value in place.items() if name != "url"}
    fs, root = fsspec.core.url_to_fs(place["url"], **options)
    fs.invalidate_cache()
    return sorted(path.rsplit("/", 1)[-1] for path in fs.find(root))


def options(place: dict[str, Any]) -> dict[str, Any]:
    return {"storage_options": {name: place[name] for name in place if name != "url"}}


def filesystem(place: dict[str, Any]) -> Any:
    return fsspec.core.url_to_fs(place["url"], **options(place)["storage_options"])


@pytest.mark.parametrize("background", [False, True])
def test_checkpoints_rotate_and_load_as_on_the_disk(
    place: dict[str, Any], background: bool
) -> None:
    url, net = place["url"], model(3.0)
    checkpoint = Checkpoint({"model": net}, FsspecSaver(**place), n_saved=2, background=background)
    for step in (9, 10, 11):
        checkpoint(engine_at(step))
    checkpoint.wait()
    kept = ["model_10.pt", "model_11.pt"]
    assert names(place) == [kept[0], f"{kept[0]}.sha256", kept[1], f"{kept[1]}.sha256"]
    assert checkpoint.last_checkpoint == f"{url}/model_11.pt"
    for load in (
        lambda fresh: Checkpoint.load_newest(url, fresh, **options(place)),
        lambda fresh: Checkpoint.load_objects(fresh, f"{url}/model_10.pt", **options(place)),
        lambda fresh: checkpoint.reload_objects(fresh, global_step=10),
    ):
        fresh = model()
        found = load({"model": fresh})
        assert found in (None, f"{url}/model_11.pt")
        assert torch.equal(fresh.weight, net.weight)
    with pytest.raises(ValueError, match=r"has checkpoints already: model_10\.pt, model_11\.pt"):
        FsspecSaver(**place)
    with pytest.raises(FileNotFoundError, match=r"model_8\.pt"):
        checkpoint.reload_objects({"model": net}, global_step=8)
    FsspecSaver(require_empty=False, **place).remove("model_8.pt")


def test_the_sum_is_what_sha256sum_checks_and_the_bytes_are_those_of_a_file(
    place: dict[str, Any], tmp_path: Path
) -> None:
    net = model(1.0)
    Checkpoint({"model": net}, FsspecSaver(**place))(engine_at(1))
    Checkpoint({"model": net}, tmp_path / "disk")(engine_at(1))
    fs, root = filesystem(place)
    for name in ("model_1.pt", "model_1.pt.sha256"):
        assert fs.cat_file(f"{root}/{name}") == (tmp_path / "disk" / name).read_bytes()


def test_a_damaged_object_is_skipped_and_named(
    place: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    saver = FsspecSaver(**place)
    for step in (1, 2, 3, 4):
        saver({"weight": torch.full((2, 3), float(step)), "bias": torch.zeros(2)}, f"m_{step}.pt")
    fs, root = filesystem(place)
    content = bytearray(fs.cat_file(f"{root}/m_4.pt"))
    content[len(content) // 2] ^= 1
    fs.pipe_file(f"{root}/m_4.pt", bytes(content))
    fs.pipe_file(f"{root}/m_3.pt", content[:100])
    fs.rm_file(f"{root}/m_3.pt.sha256")
    net = model()
    # What is stored again is newer: the numbers decide where the times are the same.
    found = Checkpoint.load_newest(place["url"], {"model": net}, **options(place))
    assert found == f"{place['url']}/m_2.pt"
    assert net.weight[0, 0] == 2
    for text in ("m_4.pt: damaged: its sha256 is", "m_3.pt: damaged: it is truncated"):
        assert f"{place['url']}/{text}" in caplog.text
    with pytest.raises(DamagedCheckpoint, match=r"no intact checkpoint m_4\.pt"):
        Checkpoint.load_newest(place["url"], {"model": net}, "m_4.pt", **options(place))


def test_a_hostile_object_is_refused_and_nothing_of_it_runs(
    place: dict[str, Any], tmp_path: Path
) -> None:
    FsspecSaver(**place)
    fs, root = filesystem(place)
    write_hostile("zip", tmp_path / "bad.pt", tmp_path / "ran")
    fs.pipe_file(f"{root}/bad.pt", (tmp_path / "bad.pt").read_bytes())
    with pytest.raises(DamagedCheckpoint, match=r"://.*bad\.pt: refused, and nothing in it was"):
        Checkpoint.load_objects({"model": model()}, f"{place['url']}/bad.pt", **options(place))
    assert not (tmp_path / "ran").exists()


def test_where_there_are_files_only_whole_ones_get_their_name() -> None:
    Slow.seen.clear()
    place = {"url": f"slow://runs/{secrets.token_hex(4)}"}
    saver = FsspecSaver(**place)
    for step in (1, 2):
        saver({"step": step}, "a.pt")
    assert Slow.seen
    for seen in Slow.seen:
        assert any(name.startswith(".cookfire-") for name in seen)
    # The sum of the first one is gone while the object is replaced.
    assert not any("a.pt.sha256" in seen for seen in Slow.seen[2:3])
    assert names(place) == ["a.pt", "a.pt.sha256"]
    assert saver.load("a.pt") == {"step": 2}


def test_what_may_pass_is_tried_again_and_logged_and_the_rest_is_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(object_store.time, "sleep", pauses.append)
    place = {"url": f"slow://runs/{secrets.token_hex(4)}"}
    saver = FsspecSaver(**place)
    saver({"step": 1}, "a.pt")
    Slow.fails = 2
    saver({"step": 2}, "b.pt")
    assert pauses == [1.0, 2.0]
    assert "b.pt: storing it failed, tried again in 1 s: ConnectionResetError" in caplog.text
    assert saver.load("b.pt") == {"step": 2}
    Slow.fails = 4
    with pytest.raises(OSError, match=r"^slow://runs/\w+/c\.pt: storing it failed: Connection"):
        saver({"step": 3}, "c.pt")
    assert Slow.fails == 0
    assert names(place) == ["a.pt", "a.pt.sha256", "b.pt", "b.pt.sha256"]


def test_mistakes_are_said_in_one_line(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store.time, "sleep", lambda seconds: None)
    end = {"endpoint_url": s3["endpoint_url"]}
    down = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (FileNotFoundError, "there is no bucket 'nowhere'", {"url": "s3://nowhere/a", **end}),
        (ValueError, "expected a bucket after", {"url": "s3://", **end}),
        (ValueError, "Protocol not known: foo", {"url": "foo://a"}),
        (ModuleNotFoundError, "install gcsfs", {"url": "gs://bucket/a"}),
        (OSError, "listing failed: EndpointConnectionError", {"url": s3["url"], **down}),
    ]
    for kind, words, arguments in cases:
        with pytest.raises(kind, match=words) as caught:
            FsspecSaver(**arguments)
        assert str(caught.value).startswith(arguments["url"])
        assert "\n" not in str(caught.value)
    saver = FsspecSaver(**s3)
    filesystem(s3)[0].rm(s3["url"].rsplit("/", 1)[0], recursive=True)
    with pytest.raises(FileNotFoundError, match=r"/a\.pt: storing it failed: .*bucket"):
        saver({"step": 1}, "a.pt")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(PermissionError, match=r"Unable to locate credentials.*Give credentials"):
        FsspecSaver(s3["url"], client_kwargs=end)


def test_what_could_not_be_loaded_safely_is_not_stored(place: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"a\.pt: not saved.*where is a pathlib"):
        FsspecSaver(**place)({"where": Path()}, "a.pt")
    assert names(place) == []


def test_addresses_are_told_from_folders() -> None:
    net, url = model(2.0), f"memory://runs/{secrets.token_hex(4)}"
    Checkpoint({"model": net}, url)(engine_at(1))
    assert names({"url": url}) == ["model_1.pt", "model_1.pt.sha256"]
    with pytest.raises(ValueError, match=r"use FsspecSaver\('memory://a'\)"):
        ModelCheckpoint("memory://a")
    with pytest.raises(TypeError, match="storage_options are for addresses"):
        Checkpoint.load_newest("folder", {"model": net}, storage_options={})


def test_fsspec_is_imported_on_use_and_its_absence_is_said() -> None:
    script = """
import sys
import cookfire.handlers
assert not any(name == "fsspec" or name.startswith("fsspec.") for name in sys.modules)
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "fsspec" else find(name, *a)
try:
    cookfire.handlers.FsspecSaver("s3://bucket/a")
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "pip install 'cookfire-handlers[fsspec]'" in done.stdout
