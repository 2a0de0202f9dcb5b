"""Several metrics as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cookfire.metrics._external import MetricLike, adapt
from cookfire.metrics._members import update_each
from cookfire.metrics._usage import MetricUsage
from cookfire.metrics._values import same
from cookfire.metrics.metric import Metric


class MetricGroup(Metric):
    """Several metrics that are attached, updated and computed together; the value is a dict.

    Args:
        metrics: by name; the names are those in ``engine.state.metrics``. Of a metric of another
            library, such as torchmetrics, a copy is used.
        output_transform: applied before each metric's own.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        TypeError: something is no metric.

    Example:
        >>> group = MetricGroup({"accuracy": Accuracy(), "recall": Recall(average="macro")})
        >>> group.update((torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 1, 1])))
        >>> group.compute()
        {'accuracy': 0.75, 'recall': 0.8333333333333333}
    """

    required_output_keys = None

    def __init__(
        self,
        metrics: Mapping[str, Metric | MetricLike],
        output_transform: Callable[[Any], Any] = same,
        skip_unrolling: bool = False,
    ) -> None:
        if not isinstance(metrics, Mapping):
            raise TypeError(
                f"metrics must be a mapping of names to metrics, got {type(metrics).__name__}"
            )
        self.metrics = {name: adapt(metric) for name, metric in metrics.items()}
        super().__init__(output_transform, skip_unrolling=skip_unrolling)

    def reset(self) -> None:
        """Reset all of them."""
        for metric in self.metrics.values():
            metric.reset()

    def update(self, output: Any) -> None:
        """Update all of them, each with its own ``output_transform``."""
        update_each((leaf for m in self.metrics.values() for leaf in m._leaves()), output)

    def compute(self) -> dict[str, Any]:
        """Return their values by name.

        Raises:
            NotComputableError: one of them saw no example.
        """
        return {name: metric.compute() for name, metric in self.metrics.items()}

    def _leaves(self) -> Iterator[Metric]:
        if self._output_transform is not same or self._skip_unrolling:
            yield self
            return
        # Nothing comes before their own transforms: an engine can update them one by one, and
        # share what they have in common.
        leaves = (leaf for metric in self.metrics.values() for leaf in metric._leaves())
        yield from dict.fromkeys(leaves)

    def _is_lazy(self, usage: MetricUsage) -> bool:
        return any(metric._is_lazy(usage) for metric in self.metrics.values())

    def _transform(self, output: Any) -> Any:
        return self._output_transform(output)
