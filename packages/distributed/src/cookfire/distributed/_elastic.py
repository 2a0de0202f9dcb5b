"""Meeting again after torchrun has restarted the processes.

The agent of torchrun keeps one store for all attempts, and what the processes of the attempt before
wrote there, such as their addresses, is found by those of the next: they try to reach the dead, or
wait for them (pytorch/pytorch#135712). Its count of restarts tells attempts apart on one node only,
since each agent has its own. So the first process draws a name for each attempt, and makes sure
that all others which are there now have it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # exported, unlisted
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import rendezvous


def may_restart() -> bool:
    """Whether torchrun may start this process's group again, with the same store."""
    return (
        os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    )


def meet(rank: int, world_size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``init_process_group`` needs to know, with a store that nobody has used before.

    Args:
        rank: This process's.
        world_size: How many processes there are in this attempt.
        options: Those of ``init_process_group``; ``timeout`` counts here too.
    """
    timeout = options.get("timeout") or default_pg_timeout
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
    store.set_timeout(timeout)
    name = agree_on_a_name(store, rank, world_size, timeout)
    return {"store": PrefixStore(name, store), "rank": rank, "world_size": world_size}


def agree_on_a_name(store: Any, rank: int, world_size: int, timeout: timedelta) -> str:
    """Return a name that all processes of this attempt have, and none of another one.

    Each says a word of its own and waits for the answer to it. The first process answers every
    word, also those of the dead, until as many as there are have thanked it.

    Raises:
        RuntimeError: In the first process, when not all have come in time.
    """
    word = secrets.token_hex(8)
    if rank != 0:
        store.append("words", f"{word} ")
        name: str = store.get(f"answer to {word}").decode()
        store.add(f"thanks for {name}", 1)
        return name
    answered: set[str] = set()
    deadline = time.monotonic() + timeout.total_seconds()
    while store.add(f"thanks for {word}", 0) < world_size - 1:
        if store.check(["words"]):
            for other in set(store.get("words").decode().split()) - answered:
                store.set(f"answer to {other}", word)
                answered.add(other)
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all of the {world_size} processes have come in {timeout}")
        time.sleep(0.01)
    return word
