"""The mean of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cookfire.metrics._state import WITHOUT_FLOAT64, MetricState
from cookfire.metrics._values import need_pair, same
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
        TypeError: ``loss_fn`` can't be called; by ``update``, it returned no tensor.
        ValueError: ``loss_fn`` has ``reduction="sum"`` and is to be weighted by ``len``; by
            ``update``, it returned no mean.

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
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable, got {loss_fn!r}")
        if getattr(loss_fn, "reduction", None) == "sum" and batch_size is len:
            raise ValueError(
                "loss_fn must return the mean over the batch, this one has reduction='sum': leave "
                "that out; or, for the mean over batches of their sums, set batch_size=lambda y: 1"
            )
        self._loss_fn = loss_fn
        self._batch_size = batch_size
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Any]) -> None:
        """Add a batch's loss."""
        if not isinstance(output, tuple | list) or len(output) != 3:
            output = *need_pair(type(self).__name__, output), {}
        y_pred, y, kwargs = output
        count = self._batch_size(y)
        if not count:
            return  # the mean over nothing is not a number
        loss = self._loss_fn(y_pred, y, **kwargs)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn must return a tensor, got {type(loss).__name__} {loss!r}")
        loss = loss.detach()
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
