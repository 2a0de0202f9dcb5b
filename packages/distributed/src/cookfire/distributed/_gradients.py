"""Summing gradients so that their bits depend on the processes alone.

An all-reduce adds up each element in an order that depends on where it lies in the buffer, and
DistributedDataParallel lays out its buffers anew after the first backward pass. So the first step
after a resume would give other bits than the same step of a run that never stopped.
"""

# Annotations are evaluated here: DistributedDataParallel looks at those of a hook.

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import GradBucket, ProcessGroup  # type: ignore[attr-defined]  # exported, unlisted
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel


def make_reproducible(model: DistributedDataParallel) -> None:
    """Sum the model's gradients in the order of the ranks, if torch is to be deterministic.

    Two processes need nothing: there is one order only.
    """
    group = model.process_group
    if torch.are_deterministic_algorithms_enabled() and dist.get_world_size(group) > 2:
        model.register_comm_hook(group, average_in_rank_order)


def average_in_rank_order(group: ProcessGroup, bucket: GradBucket) -> Future[Tensor]:
    """Average a bucket: each process adds up one part of it for all, then all get all parts.

    As much is sent as in a ring.
    """
    whole, count = bucket.buffer(), dist.get_world_size(group)
    length = -(-whole.numel() // count)
    padded = whole.new_zeros(count * length)
    padded[: whole.numel()] = whole
    parts = torch.empty_like(padded)

    def gather(_: object) -> Tensor:
        mine = parts.view(count, length)
        total = mine[0].clone()
        for rank in range(1, count):
            total += mine[rank]
        total /= count
        dist.all_gather_into_tensor(padded, total, group)
        whole.copy_(padded[: whole.numel()])
        return whole

    exchange = dist.all_to_all_single(parts, padded, group=group, async_op=True)
    assert exchange is not None
    return exchange.get_future().then(gather)
