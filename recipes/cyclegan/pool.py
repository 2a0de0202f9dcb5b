"""Generated pictures of earlier steps, so that discriminators do not forget what they saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cookfire import distributed as idist


class PicturePool:
    """Keeps up to ``size`` generated pictures, and hands out older ones in half of all cases.

    While it is not full, pictures are kept and handed out as they come. Later each is, by a coin,
    either handed out itself, or put in the place of a picture drawn from the pool, which is handed
    out in its stead (arXiv 1612.07828, section 2.3). What is drawn is a function of (seed, step).

    All processes have the same pool: each sees the pictures of all, in the order of the batch, so
    that what a discriminator is shown does not depend on their number.

    Args:
        size: of the pool; 0: pictures pass through.
        seed: what chance is derived from; each pool has its own.

    Example:
        >>> pool = PicturePool(50, seed=0)
        >>> pool.exchange(torch.zeros(2, 3, 8, 8), step=1).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._pictures: Tensor | None = None  # (size, 3, H, W), of which the first _count count
        self._count = 0

    def exchange(self, pictures: Tensor, step: int) -> Tensor:
        """Return as many pictures as came in (this process's share), some of them older ones.

        Args:
            pictures: (B, 3, H, W), without gradients; as many in each process.
            step: the number of the training step.
        """
        if self._size == 0:
            return pictures
        everywhere = idist.all_gather(pictures)
        if self._pictures is None:
            self._pictures = everywhere.new_zeros(self._size, *everywhere.shape[1:])
        self._pictures = self._pictures.to(everywhere.device)
        chance = torch.Generator().manual_seed(idist.derive_seed(self._seed, step))
        coins = torch.randint(2, (len(everywhere),), generator=chance).tolist()
        places = torch.randint(self._size, (len(everywhere),), generator=chance).tolist()
        handed_out = everywhere.clone()
        for number, (coin, place) in enumerate(zip(coins, places, strict=True)):
            if self._count < self._size:
                self._pictures[self._count] = everywhere[number]
                self._count += 1
            elif coin:
                handed_out[number] = self._pictures[place]
                self._pictures[place] = everywhere[number]
        first = idist.get_rank() * len(pictures)
        return handed_out[first : first + len(pictures)]

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the pictures, and how many there are."""
        pictures = None if self._pictures is None else self._pictures.clone()
        return {"pictures": pictures, "count": self._count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the pictures of :meth:`state_dict`."""
        self._pictures, self._count = state_dict["pictures"], state_dict["count"]
