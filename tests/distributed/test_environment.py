"""What the variables of torchrun and SLURM say of a process's place."""

from __future__ import annotations

import os

import pytest

from cookfire.distributed._environment import Place, launched, name_slurm_master

VARIABLES = [
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
]


@pytest.fixture
def environment(monkeypatch):
    """The environment without any launcher's variables; put back afterwards."""
    for name in [*VARIABLES, *(name for name in os.environ if name.startswith("SLURM_"))]:
        # Set first, so that what a test sets itself is removed again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def _set(environment, **variables: object) -> None:
    for name, value in variables.items():
        environment.setenv(name, str(value))


def test_nobody_launched_a_plain_process(environment):
    assert launched() is None


def test_torchrun_says_everything(environment):
    _set(environment, RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4)
    _set(environment, GROUP_RANK=1, GROUP_WORLD_SIZE=2)
    assert launched() == Place(5, 8, 1, 4, 1, 2)


def test_a_place_reads_back_as_it_was_exported(environment):
    place = Place(5, 8, 1, 4, 1, 2)
    place.export()
    assert launched() == place


def test_one_node_is_assumed_where_a_launcher_says_nothing_of_nodes(environment):
    _set(environment, RANK=1, WORLD_SIZE=2)
    assert launched() == Place.on_one_node(1, 2)


def test_nodes_follow_from_the_processes_on_each(environment):
    _set(environment, RANK=5, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4)
    assert launched() == Place(5, 8, 1, 4, 1, 2)


@pytest.mark.parametrize(
    ("tasks", "place"),
    [
        ("2(x2)", Place(3, 4, 1, 2, 1, 2)),
        ("3,1", Place(3, 4, 0, 1, 1, 2)),
        ("1(x3),1", Place(1, 4, 0, 1, 1, 4)),
    ],
)
def test_slurm_says_where_a_task_of_a_step_stands(environment, tasks, place):
    _set(environment, SLURM_PROCID=place.rank, SLURM_STEP_NUM_TASKS=4)
    _set(environment, SLURM_LOCALID=place.local_rank, SLURM_NODEID=place.node_rank)
    _set(environment, SLURM_STEP_NUM_NODES=place.nnodes, SLURM_STEP_TASKS_PER_NODE=tasks)
    assert launched() == place


def test_a_batch_script_of_slurm_is_a_plain_process(environment):
    _set(environment, SLURM_PROCID=0, SLURM_NTASKS=4)
    assert launched() is None


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("alone", "alone"),
        ("a,b", "a"),
        ("node[003-005,09],other", "node003"),
        ("r[1-2]n[7,9]", "r1n7"),
    ],
)
def test_the_first_host_of_a_slurm_step_is_the_master(environment, hosts, first):
    _set(environment, SLURM_STEP_NODELIST=hosts, SLURM_JOB_ID=1234567)
    name_slurm_master()
    assert os.environ["MASTER_ADDR"] == first
    assert os.environ["MASTER_PORT"] == "24567"


def test_a_master_that_is_given_stays(environment):
    _set(environment, SLURM_STEP_NODELIST="a,b", MASTER_ADDR="c", MASTER_PORT=1)
    name_slurm_master()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("c", "1")


def test_a_variable_that_is_no_number_is_named(environment):
    _set(environment, RANK="first", WORLD_SIZE=2)
    with pytest.raises(ValueError, match="variable RANK='first': expected a whole number"):
        launched()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": 3, "WORLD_SIZE": 2}, "RANK=3, WORLD_SIZE=2: expected a rank from 0 to"),
        ({"RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 0}, "LOCAL_WORLD_SIZE=0: expected 1 to"),
        ({"RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 3}, "LOCAL_WORLD_SIZE=3: expected 1 to"),
    ],
)
def test_variables_that_contradict_one_another_are_refused(environment, variables, words):
    _set(environment, **variables)
    with pytest.raises(ValueError, match=words):
        launched()
