"""The mean of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import same
from cookfire.metrics.metric import Metric


class Loss(Metric):
    """The mean of a loss function over all examples.

    Args:
        loss_fn: ``(y_pred, y, **kwargs) -> mean over the batch``, a tensor without dimensions.
        output_transform: turns the engine's output into ``(y_pred, y)`` or
            ``(y_pred, y, kwargs)``; of a mapping, the keys ``y_pred``, ``y`` and, if it is there,
            ``criterion_kwargs`` are taken.
        batch_size: ``y -> number of examples``, by which a batch's mean is weighted.
        device: where the sum is kept; None: where the loss is.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        ValueError: by ``update``, ``loss_fn`` returned no mean.

    Example:
        >>> metric = Loss(torch.nn.functional.mse_loss)
        >>> metric.update((torch.zeros(2, 3), torch.ones(2, 3)))
        >>> metric.compute()
        1.0
    """

    required_output_keys = ("y_pred", "y", "criterion_kwargs")

    total = MetricState(torch.float64)
    count = MetricState(torch.int64)

    def __init__(
        self,
        loss_fn: Callable[..., Tensor],
        output_transform: Callable[[Any], Any] = same,
        batch_size: Callable[[Any], int] = len,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        self._loss_fn = loss_fn
        self._batch_size = batch_size
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Any]) -> None:
        """Add a batch's loss."""
        y_pred, y, *rest = output
        count = self._batch_size(y)
        if not count:
            return  # the mean over nothing is not a number
        kwargs = rest[0] if rest else {}
        loss = self._loss_fn(y_pred, y, **kwargs).detach()
        if loss.ndim > 0:
            raise ValueError(
                f"loss_fn must return the mean over the batch, a tensor without dimensions; got "
                f"the shape {tuple(loss.shape)}: a loss with reduction='none' is averaged first"
            )
        precise = loss.float() if loss.device.type in WITHOUT_FLOAT64 else loss.double()
        self.accumulate(total=precise * float(count), count=count)

    def compute(self) -> float | Tensor:
        """Return the mean as a float.

        Raises:
            NotComputableError: there was no example.
        """
        return self._mean("total", "count")

    def _select(self, output: Mapping[str, Any]) -> tuple[Any, ...]:
        keys = self.required_output_keys
        if keys is not None and keys[-1] == "criterion_kwargs" and keys[-1] not in output:
            output = {**output, "criterion_kwargs": {}}
        return super()._select(output)
