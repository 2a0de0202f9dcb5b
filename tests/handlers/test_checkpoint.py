"""Checkpoints: what is kept, under which names, and what mistakes are said."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.engine
import ignite.handlers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookfire.engine import Engine, Events
from cookfire.handlers import (
    Checkpoint,
    CheckpointEvents,
    DiskSaver,
    ModelCheckpoint,
    global_step_from_engine,
)
from tests.handlers.helpers import Memory, checkpoints, engine_at, model


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- names


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "model_50.pt"),
        ({"filename_prefix": "best"}, "best_model_50.pt"),
        ({"score_function": lambda engine: 0.25}, "model_0.2500.pt"),
        ({"score_function": lambda engine: 1}, "model_1.pt"),
        ({"score_name": "accuracy"}, "model_accuracy=0.3000.pt"),
        ({"global_step_transform": lambda engine, event: 7}, "model_7.pt"),
        (
            {"score_name": "accuracy", "global_step_transform": lambda engine, event: 2},
            "model_2_accuracy=0.3000.pt",
        ),
        (
            {
                "filename_prefix": "best",
                "score_function": lambda engine: torch.tensor(0.3),
                "score_name": "val/accuracy",
                "global_step_transform": lambda engine, event: 2,
            },
            "best_model_2_val_accuracy=0.3000.pt",
        ),
        ({"filename_pattern": "best.{ext}"}, "best.pt"),
        ({"filename_prefix": "../first"}, ".._first_model_50.pt"),
        ({"filename_pattern": "{name}-{global_step:05d}.{ext}"}, "model-00050.pt"),
        ({"filename_pattern": "{filename_prefix}{name}.pth"}, "model.pth"),
    ],
)
def test_names_are_made_of_prefix_object_step_and_score(
    tmp_path: Path, arguments: dict[str, Any], name: str
) -> None:
    Checkpoint({"model": model()}, tmp_path, **arguments)(engine_at(50, accuracy=0.3))
    assert names(tmp_path) == [name, f"{name}.sha256"]


def test_several_objects_are_a_dict_called_checkpoint_and_one_is_its_bare_state(
    tmp_path: Path,
) -> None:
    net = model(2.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    Checkpoint({"model": net, "optimizer": optimizer}, tmp_path, "training")(engine_at(50))
    Checkpoint({"model": net}, tmp_path)(engine_at(1))
    several = torch.load(tmp_path / "training_checkpoint_50.pt", weights_only=True)
    assert list(several) == ["model", "optimizer"]
    assert several["optimizer"]["param_groups"][0]["lr"] == 0.5
    alone = torch.load(tmp_path / "model_1.pt", weights_only=True)
    assert list(alone) == ["weight", "bias"]


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("score", [True, False])
@pytest.mark.parametrize("score_name", [True, False])
@pytest.mark.parametrize("step", [True, False])
def test_patterns_are_those_of_ignite(
    prefix: bool, score: bool, score_name: bool, step: bool
) -> None:
    try:
        expected = ignite.handlers.Checkpoint.setup_filename_pattern(
            prefix, score, score_name, step
        )
    except ValueError:
        with pytest.raises(ValueError, match="with_score"):
            Checkpoint.setup_filename_pattern(prefix, score, score_name, step)
    else:
        assert Checkpoint.setup_filename_pattern(prefix, score, score_name, step) == expected


# --- which are kept


scores = st.lists(
    st.floats(-1, 1) | st.sampled_from([0.1, 0.2, 0.3]) | st.integers(-3, 3), max_size=12
)


def calls_of(kind: Any, saver: Any, engine: Any, values: list[Any], **arguments: Any) -> Any:
    checkpoint = kind({"model": model()}, saver, **arguments)
    for step, value in enumerate(values):
        engine.state.iteration, engine.state.score = step, value
        checkpoint(engine)
    return checkpoint


class IgniteMemory(ignite.handlers.checkpoint.BaseSaveHandler):
    def __init__(self) -> None:
        self.files: set[str] = set()

    def __call__(self, checkpoint: Any, filename: str, metadata: Any = None) -> None:
        self.files.add(filename)

    def remove(self, filename: str) -> None:
        self.files.remove(filename)


@settings(deadline=None, max_examples=150)
@given(
    values=scores,
    n_saved=st.none() | st.integers(1, 4),
    greater_or_equal=st.booleans(),
    named=st.booleans(),
)
def test_the_same_files_are_kept_as_by_ignite(
    values: list[float], n_saved: int | None, greater_or_equal: bool, named: bool
) -> None:
    arguments: dict[str, Any] = {
        "score_function": lambda engine: engine.state.score,
        "score_name": "acc" if named else None,
        "n_saved": n_saved,
        "greater_or_equal": greater_or_equal,
        "global_step_transform": lambda engine, event: engine.state.iteration,
        "filename_prefix": "best",
    }
    ours, theirs = Memory(), IgniteMemory()
    first = calls_of(Checkpoint, ours, engine_at(), values, **arguments)
    other = ignite.engine.Engine(lambda engine, batch: None)
    second = calls_of(ignite.handlers.Checkpoint, theirs, other, values, **arguments)
    assert set(ours.files) == theirs.files
    assert first.last_checkpoint == second.last_checkpoint
    assert first.state_dict()["_saved"] == second.state_dict()["_saved"]


def test_without_a_score_the_newest_are_kept_and_the_old_is_removed_after_the_new_is_saved() -> (
    None
):
    saver = Memory()
    checkpoint = Checkpoint({"model": model()}, saver, n_saved=2)
    for step in [10, 20, 30, 5]:  # 5: the trainer began anew
        checkpoint(engine_at(step))
    assert saver.calls == [
        ("save", "model_10.pt"),
        ("save", "model_20.pt"),
        ("save", "model_30.pt"),
        ("remove", "model_10.pt"),
        ("save", "model_5.pt"),
        ("remove", "model_20.pt"),
    ]
    assert checkpoint.last_checkpoint == "model_5.pt"


def test_with_a_fixed_name_only_a_better_score_overwrites_the_file() -> None:
    saver = Memory()
    checkpoint = calls_of(
        Checkpoint, saver, engine_at(), [1.0, 3.0, 2.0, math.nan, 4.0], n_saved=2,
        score_function=lambda engine: engine.state.score, filename_pattern="best.{ext}",
    )  # fmt: skip
    assert saver.calls == [("save", "best.pt")] * 3
    assert checkpoint.state_dict() == {"_saved": [(4.0, "best.pt")]}


def test_nan_is_worse_than_any_score_and_goes_first() -> None:
    saver = Memory()
    calls_of(
        Checkpoint, saver, engine_at(), [math.nan, math.nan, -5.0, math.nan], n_saved=1,
        score_function=lambda engine: engine.state.score,
    )  # fmt: skip
    assert list(saver.files) == ["model_-5.0000.pt"]
    assert saver.calls[:2] == [("save", "model_nan.pt"), ("save", "model_-5.0000.pt")]


def test_a_failing_save_leaves_the_older_checkpoint_and_is_raised_once() -> None:
    class Failing(Memory):
        def __call__(self, checkpoint: Any, filename: str, metadata: Any = None) -> None:
            super().__call__(checkpoint, filename, metadata)
            if len(self.calls) > 1:
                del self.files[filename]
                raise TypeError("of the saver itself")

    saver = Failing()
    checkpoint = Checkpoint({"model": model()}, saver)
    checkpoint(engine_at(1))
    with pytest.raises(TypeError, match="of the saver itself"):
        checkpoint(engine_at(2))
    assert saver.calls == [("save", "model_1.pt"), ("save", "model_2.pt")]
    assert checkpoint.state_dict() == {"_saved": [(1, "model_1.pt")]}


def test_the_metadata_name_the_score_and_its_value() -> None:
    saver = Memory()
    Checkpoint({"model": model()}, saver, "best", score_name="accuracy")(engine_at(accuracy=0.5))
    assert saver.metadata == [{"basename": "best_model", "score_name": "accuracy", "priority": 0.5}]


def test_a_function_is_called_as_its_signature_says() -> None:
    calls: list[tuple[Any, ...]] = []
    functions: list[Callable[..., None]] = [
        lambda checkpoint, filename: calls.append((filename,)),
        lambda checkpoint, filename, metadata: calls.append((filename, metadata["priority"])),
    ]
    for function in functions:
        Checkpoint({"model": model()}, function)(engine_at(3))
    assert calls == [("model_3.pt",), ("model_3.pt", 3)]
    with pytest.raises(TypeError, match=r"save_handler takes \(checkpoint\)"):
        Checkpoint({"model": model()}, lambda checkpoint: None)


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"to_save": 3}, TypeError, "to_save must be a dict of objects.*got int"),
        ({"to_save": {"model": 3}}, TypeError, r"to_save\['model'\] must have state_dict\(\)"),
        ({"to_save": {3: model()}}, TypeError, "keys of to_save must be strings, got 3"),
        ({"save_handler": 3}, TypeError, "a folder, a function or a BaseSaveHandler, got int"),
        ({"n_saved": 0}, ValueError, "n_saved must be at least 1.*got 0"),
        ({"n_saved": 1.5}, TypeError, "n_saved must be a whole number of checkpoints, got 1.5"),
        ({"filename_pattern": ""}, ValueError, "filename_pattern is empty"),
        ({"filename_pattern": 3}, ValueError, "filename_pattern 3: expected str"),
        ({"filename_pattern": "{name"}, ValueError, r"'{name': expected '}'.*such as '{name}"),
        ({"filename_pattern": "../{name}.pt"}, ValueError, "has a slash; it names a file"),
        ({"score_function": 3}, TypeError, "score_function must be a function, got int"),
        ({"global_step_transform": 3}, TypeError, "global_step_transform must be a function"),
        ({"filename_pattern": "{nme}.pt"}, ValueError, "unknown field 'nme'; the fields are"),
        ({"filename_pattern": "{score}.pt"}, ValueError, "'score' needs score_function"),
        ({"filename_pattern": "{score_name}.pt"}, ValueError, "'score_name' needs score_name"),
        (
            {"to_save": {"checkpointer": model()}, "include_self": True},
            ValueError,
            "to_save can't have that key",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    given: dict[str, Any] = {"to_save": {"model": model()}, "save_handler": Memory()}
    with pytest.raises(error, match=words):
        Checkpoint(**(given | arguments))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("rank", [-1, 1, "0"])
def test_a_rank_that_no_process_has_is_refused_whoever_names_it(
    tmp_path: Path, rank: Any, background: bool
) -> None:
    for saver, own in ((str(tmp_path), rank), (DiskSaver(tmp_path, save_on_rank=rank), 0)):
        checkpoint = Checkpoint({"model": model()}, saver, save_on_rank=own, background=background)
        with pytest.raises(ValueError, match=rf"save_on_rank={rank!r}, but there are 1 process"):
            checkpoint(engine_at(1))


def test_a_missing_metric_is_named_with_those_that_exist() -> None:
    checkpoint = Checkpoint({"model": model()}, Memory(), score_name="acc")
    with pytest.raises(ValueError, match="no metric 'acc'; its metrics are: 'accuracy', 'loss'"):
        checkpoint(engine_at(accuracy=0.5, loss=1.0))
    with pytest.raises(ValueError, match="its metrics are: none"):
        checkpoint(engine_at())


@pytest.mark.parametrize("score", ["high", None, torch.zeros(2)])
def test_a_score_that_is_no_number_is_refused(score: Any) -> None:
    checkpoint = Checkpoint({"model": model()}, Memory(), score_function=lambda engine: score)
    with pytest.raises(ValueError, match="score_function's result must be (a|one) number"):
        checkpoint(engine_at())


def test_a_step_that_is_no_number_is_refused() -> None:
    wrong: Any = lambda engine, event: "two"  # noqa: E731 - its type is to be wrong
    checkpoint = Checkpoint({"model": model()}, Memory(), global_step_transform=wrong)
    with pytest.raises(ValueError, match="global_step_transform must return a number, got 'two'"):
        checkpoint(engine_at())


def test_nothing_to_save_and_objects_given_to_the_wrong_class_are_said() -> None:
    with pytest.raises(ValueError, match="nothing to save"):
        Checkpoint({}, Memory())(engine_at())
    with pytest.raises(TypeError, match="use ModelCheckpoint"):
        Checkpoint({"model": model()}, Memory())(engine_at(), {"model": model()})


# --- with an engine


def test_it_saves_when_an_exception_is_raised_and_the_exception_goes_on(tmp_path: Path) -> None:
    def step(engine: Engine, batch: int) -> None:
        if batch == 3:
            raise RuntimeError("at three")

    trainer = Engine(step)
    trainer.add_event_handler(Events.EXCEPTION_RAISED, Checkpoint({"model": model()}, tmp_path))
    with pytest.raises(RuntimeError, match="at three"):
        trainer.run([1, 2, 3])
    assert len(checkpoints(tmp_path)) == 1


def test_each_save_fires_an_event_when_the_file_is_there(tmp_path: Path) -> None:
    trainer = Engine(lambda engine, batch: None)
    trainer.register_events(*CheckpointEvents)
    checkpoint = Checkpoint({"model": model()}, tmp_path)
    seen = []

    @trainer.on(Checkpoint.SAVED_CHECKPOINT)
    def remember() -> None:
        seen.append(checkpoints(tmp_path))

    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=2), checkpoint)
    trainer.run([0] * 5)
    assert seen == [["model_2.pt"], ["model_4.pt"]]


def test_model_checkpoint_saves_what_it_is_attached_with(tmp_path: Path) -> None:
    trainer = Engine(lambda engine, batch: None)
    evaluator = Engine(lambda engine, batch: None)
    values = iter([0.1, 0.3, 0.3, 0.2])
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(f1=next(values))
    )
    handler = ModelCheckpoint(
        tmp_path / "output",
        n_saved=2,
        filename_prefix="best",
        score_function=lambda engine: engine.state.metrics["f1"],
        score_name="f1",
        global_step_transform=global_step_from_engine(trainer),
    )
    evaluator.add_event_handler(Events.COMPLETED, handler, {"model": model()})
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.run([0], max_epochs=4)
    expected = ["best_model_2_f1=0.3000.pt", "best_model_3_f1=0.3000.pt"]
    assert checkpoints(tmp_path / "output") == expected
    assert handler.last_checkpoint == tmp_path / "output" / expected[1]


def test_model_checkpoint_wants_an_empty_folder_unless_told_otherwise(tmp_path: Path) -> None:
    ModelCheckpoint(tmp_path)(engine_at(1), {"model": model()})
    with pytest.raises(ValueError, match=r"has checkpoints already: model_1\.pt; give another"):
        ModelCheckpoint(tmp_path)
    ModelCheckpoint(tmp_path, require_empty=False)
    with pytest.raises(ValueError, match="no such folder"):
        ModelCheckpoint(tmp_path / "a", create_dir=False)
    with pytest.raises(TypeError, match="to_save must be a dict"):
        ModelCheckpoint(tmp_path, require_empty=False)(engine_at(1), model())


def test_a_checkpoint_of_the_introduction_is_written_in_a_fresh_folder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Engine(lambda engine, batch: None)
        handler = ModelCheckpoint(folder, "myprefix", n_saved=2)
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), handler, {"mymodel": model()})
        trainer.run([0, 1, 2, 3, 4], max_epochs=6)
        assert checkpoints(Path(folder)) == ["myprefix_mymodel_20.pt", "myprefix_mymodel_30.pt"]
