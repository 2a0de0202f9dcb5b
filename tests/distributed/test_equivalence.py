"""1, 2 and 4 processes train the same, and go on with what others saved."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from cookfire.handlers._files import load_file
from tests.distributed.training import (
    BATCH,
    STEPS,
    WORLDS,
    WRAPS,
    Training,
    load_all,
    train_and_save,
)

Processes = Callable[..., list[Any]]

CASES = list(product(WORLDS, WRAPS))

# Sums in another order; 20 steps of Adam, whose first ones divide tiny gradients by themselves.
LOSS_TOLERANCE = 1e-5
WEIGHT_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def trained(processes: Processes, folder: Path) -> dict[int, list[Any]]:
    return {world: processes(world, train_and_save, str(folder)) for world in WORLDS}


@pytest.fixture(scope="module")
def loaded(
    trained: dict[int, list[Any]], processes: Processes, folder: Path
) -> dict[int, list[Any]]:
    return {world: processes(world, load_all, str(folder)) for world in WORLDS}


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    training = Training()
    training.run(STEPS)
    return training.result()


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, float]:
    losses = zip(ours["losses"], theirs["losses"], strict=True)
    assert ours["weights"].keys() == theirs["weights"].keys()
    return (
        max(abs(mine - other) for mine, other in losses),
        max(
            float((tensor - theirs["weights"][name]).abs().max())
            for name, tensor in ours["weights"].items()
        ),
    )


@pytest.mark.parametrize(("world", "wrap"), CASES)
def test_any_number_of_processes_sees_the_same_global_batches(trained, alone, world, wrap):
    assert len(alone["batches"]) == STEPS
    assert all(len(batch) == BATCH for batch in alone["batches"])
    for rank in trained[world]:
        assert rank[wrap]["batches"] == alone["batches"]


@pytest.mark.parametrize(("world", "wrap"), CASES)
def test_losses_and_weights_are_those_of_one_process_within_round_off(trained, alone, world, wrap):
    losses, weights = _differences(trained[world][0][wrap], alone)
    assert losses < LOSS_TOLERANCE
    assert weights < WEIGHT_TOLERANCE
    assert alone["losses"][-1] < 0.7 * alone["losses"][0], "something is learnt"


def test_a_group_of_one_trains_the_bits_of_no_group(trained, alone):
    assert _differences(trained[1][0]["ddp"], alone) == (0, 0)


@pytest.mark.parametrize("world", WORLDS)
def test_sharded_and_replicated_models_train_the_same_within_round_off(trained, world):
    losses, weights = _differences(trained[world][0]["fsdp"], trained[world][0]["ddp"])
    assert losses < LOSS_TOLERANCE
    assert weights < WEIGHT_TOLERANCE


def test_metrics_that_count_are_equal_and_others_within_a_millionth(trained):
    for world in WORLDS:
        for rank in trained[world]:
            for size, metrics in rank["metrics"].items():
                expected = trained[1][0]["metrics"][size]
                assert metrics["accuracy"] == expected["accuracy"]
                assert metrics["loss"] == pytest.approx(expected["loss"], abs=1e-6)


@pytest.mark.parametrize(("world", "wrap"), CASES)
def test_a_run_that_goes_on_in_other_processes_gives_the_bits_of_one_that_did_not_stop(
    trained, loaded, world, wrap
):
    """Which also says that each world size gives the same bits in each run."""
    whole = trained[world][0][wrap]
    rest = loaded[world][0][f"{wrap}_{world} to {wrap}"]
    assert rest["batches"] == whole["batches"][7:]
    assert rest["losses"] == whole["losses"][7:]
    for name, weights in whole["weights"].items():
        assert torch.equal(rest["weights"][name], weights)


@pytest.mark.parametrize(("world", "wrap"), CASES)
def test_what_any_processes_saved_others_go_on_with(loaded, alone, world, wrap):
    for saved_by, saved_as in CASES:
        found = loaded[world][0][f"{saved_as}_{saved_by} to {wrap}"]
        count = len(found["losses"])
        assert found["batches"] == alone["batches"][7 : 7 + count]
        assert found["losses"] == pytest.approx(alone["losses"][7 : 7 + count], abs=LOSS_TOLERANCE)


def test_a_file_does_not_show_who_loaded_and_saved_it_again(loaded, folder):
    count = 0
    for path in folder.glob("again_*/*.pt"):
        found, saved = load_file(path), load_file(folder / "saved" / path.name)
        torch.testing.assert_close(found, saved, rtol=0, atol=0)
        assert list(found["model"]) == list(saved["model"])
        count += 1
    assert count == (len(WORLDS) * len(WRAPS)) ** 2


def test_a_sharded_models_file_is_that_of_a_plain_one(trained, folder):
    plain, sharded = (load_file(folder / "saved" / f"{wrap}_2.pt") for wrap in WRAPS)
    names = list(plain["model"])
    assert list(sharded["model"]) == names
    assert sharded["optimizer"]["param_groups"] == plain["optimizer"]["param_groups"]
    for state in (plain, sharded):
        assert {type(tensor) for tensor in state["model"].values()} == {torch.Tensor}
    for index, name in enumerate(names):
        ours, theirs = sharded["optimizer"]["state"][index], plain["optimizer"]["state"][index]
        assert {item: value.shape for item, value in ours.items()} == {
            item: value.shape for item, value in theirs.items()
        }
        torch.testing.assert_close(sharded["model"][name], plain["model"][name])
