"""A function of everything that was predicted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from cookfire.metrics._state import MetricState
from cookfire.metrics._values import need_pair, need_tensors, same
from cookfire.metrics.metric import Metric


class EpochMetricWarning(UserWarning):
    """The function of an EpochMetric failed on the first batch."""


class EpochMetric(Metric):
    """A function of all predictions and targets at once, such as scikit-learn's.

    All of them are kept, and when it is computed all ranks' are brought together on each rank: this
    needs the memory for them. Ranks may have any number of examples, also none.

    Args:
        compute_fn: ``(predictions, targets) -> value``; tensors of shape ``(examples,)`` or
            ``(examples, targets)``, with the ranks' examples in order.
        output_transform: turns the engine's output into ``(y_pred, y)`` of such shapes; a second
            dimension of size 1 is dropped.
        check_compute_fn: try ``compute_fn`` on the first batch, and warn if it fails. It may wait
            for the device.
        device: where they are kept; None: where they are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        TypeError: ``compute_fn`` can't be called.
        ValueError: by ``update``, other shapes, or other dtypes than before.

    Warns:
        EpochMetricWarning: ``compute_fn`` failed on the first batch.

    Example:
        >>> largest_error = EpochMetric(lambda y_pred, y: (y_pred - y).abs().max())
        >>> largest_error.update((torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0])))
        >>> largest_error.compute()
        0.5
    """

    predictions = MetricState(reduction="cat")
    targets = MetricState(reduction="cat")

    def __init__(
        self,
        compute_fn: Callable[[Tensor, Tensor], Any],
        output_transform: Callable[[Any], Any] = same,
        check_compute_fn: bool = True,
        device: Any = None,
        skip_unrolling: bool = False,
    ) -> None:
        if not callable(compute_fn):
            raise TypeError(f"compute_fn must be callable, got {compute_fn!r}")
        self.compute_fn = compute_fn
        self._check_compute_fn = check_compute_fn
        super().__init__(output_transform, device, skip_unrolling)

    def update(self, output: Sequence[Tensor]) -> None:
        """Keep a batch."""
        y_pred, y = need_pair(type(self).__name__, output)
        y_pred, y = _examples("y_pred", y_pred), _examples("y", y)
        if not len(y_pred) and not len(y):
            return  # no function need bear with no example at all
        is_first = self._store.local.updates == 0
        self.accumulate(predictions=y_pred, targets=y)
        if is_first and self._check_compute_fn:
            try:
                self.compute_fn(self.predictions, self.targets)
            except Exception as error:  # whatever a user's function raises: it is only a try
                warnings.warn(
                    f"compute_fn failed on the first batch: {error!r}; it may do so at the end of "
                    "the epoch too",
                    EpochMetricWarning,
                    stacklevel=2,
                )

    def compute(self) -> Any:
        """Return the function's value.

        Raises:
            NotComputableError: there was no example.
        """
        self._require("predictions")
        return self.compute_fn(self.predictions, self.targets)


def _examples(name: str, tensor: Tensor) -> Tensor:
    need_tensors("EpochMetric", tensor)
    if tensor.ndim not in (1, 2):
        raise ValueError(
            f"EpochMetric: {name} must have the shape (examples,) or (examples, targets), got "
            f"{tuple(tensor.shape)}: reshape it by output_transform"
        )
    return tensor.squeeze(1) if tensor.ndim == 2 and tensor.shape[1] == 1 else tensor
