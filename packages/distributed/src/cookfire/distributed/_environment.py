"""Where the launcher says that this process stands: torchrun's variables, or SLURM's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A process's place among all processes of a job and on its node."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    nproc_per_node: int = 1
    node_rank: int = 0
    nnodes: int = 1

    @classmethod
    def on_one_node(cls, rank: int, world_size: int) -> Place:
        """The place of a process when nothing speaks of nodes: all share one."""
        return cls(rank, world_size, rank, world_size)

    def export(self) -> None:
        """Write this place into the environment, under torchrun's names."""
        values = {
            "RANK": self.rank,
            "WORLD_SIZE": self.world_size,
            "LOCAL_RANK": self.local_rank,
            "LOCAL_WORLD_SIZE": self.nproc_per_node,
            "GROUP_RANK": self.node_rank,
            "GROUP_WORLD_SIZE": self.nnodes,
        }
        os.environ.update({name: str(value) for name, value in values.items()})


def launched() -> Place | None:
    """The place that the launcher gave this process; None if no launcher started it.

    ``RANK`` and ``WORLD_SIZE`` (torchrun, ``Parallel``'s own children, most cluster operators) win
    over SLURM's variables; what a launcher leaves out is filled in as if there were one node.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _of_torchrun()
    if "SLURM_PROCID" in os.environ and "SLURM_STEP_NUM_TASKS" in os.environ:
        return _of_slurm()
    return None


def name_slurm_master() -> None:
    """Set ``MASTER_ADDR`` and ``MASTER_PORT``, which torch asks for, where only SLURM spoke.

    The address is the step's first host; the port follows from the job's number, so that all
    processes find the same one and two jobs on a host rarely do. Set either yourself to override.
    """
    if "SLURM_STEP_NODELIST" in os.environ:
        hosts = re.sub(r"\[(\d+)[^\]]*\]", r"\1", os.environ["SLURM_STEP_NODELIST"])
        os.environ.setdefault("MASTER_ADDR", hosts.split(",")[0])
        os.environ.setdefault("MASTER_PORT", str(20_000 + _read("SLURM_JOB_ID", 0) % 10_000))


def _of_torchrun() -> Place:
    rank, world_size = _read("RANK", 0), _read("WORLD_SIZE", 1)
    if not 0 <= rank < world_size:
        raise ValueError(
            f"environment variables RANK={rank}, WORLD_SIZE={world_size}: expected a rank from 0 "
            "to WORLD_SIZE - 1"
        )
    nproc_per_node = _read("LOCAL_WORLD_SIZE", world_size)
    if not 1 <= nproc_per_node <= world_size:
        raise ValueError(
            f"environment variable LOCAL_WORLD_SIZE={nproc_per_node}: expected 1 to WORLD_SIZE, "
            f"{world_size}"
        )
    return Place(
        rank,
        world_size,
        _read("LOCAL_RANK", rank % nproc_per_node),
        nproc_per_node,
        _read("GROUP_RANK", rank // nproc_per_node),
        _read("GROUP_WORLD_SIZE", -(-world_size // nproc_per_node)),
    )


def _of_slurm() -> Place:
    # The STEP variables are set by srun alone: a batch script has SLURM_PROCID=0 as well, but
    # nobody stands beside it.
    rank, world_size = _read("SLURM_PROCID", 0), _read("SLURM_STEP_NUM_TASKS", 1)
    node_rank = _read("SLURM_NODEID", 0)
    tasks: list[int] = []  # of each node: "2(x3),1" is 2, 2, 2, 1
    for part in os.environ.get("SLURM_STEP_TASKS_PER_NODE", str(world_size)).split(","):
        count, _, times = part.rstrip(")").partition("(x")
        tasks += [int(count)] * int(times or 1)
    return Place(
        rank,
        world_size,
        _read("SLURM_LOCALID", rank),
        tasks[node_rank],
        node_rank,
        _read("SLURM_STEP_NUM_NODES", len(tasks)),
    )


def _read(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"environment variable {name}={text!r}: expected a whole number") from None
