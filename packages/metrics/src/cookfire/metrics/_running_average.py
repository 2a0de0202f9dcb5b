"""An exponential moving average, of an output or of another metric."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cookfire.engine import Engine, Events, RemovableEventHandle
from cookfire.metrics._state import MetricState, Pieces
from cookfire.metrics._usage import (
    RUNNING_BATCH_WISE,
    MetricUsage,
    SingleEpochRunningBatchWise,
    find_usage,
)
from cookfire.metrics._values import need_number
from cookfire.metrics.metric import Metric


def is_at_hand(value: Tensor) -> bool:
    """Whether a single number can be read without waiting for a device."""
    return value.is_cpu and value.dim() == 0


def _nothing(output: Any) -> Any:  # noqa: ARG001 - a transform's signature
    return None


class RunningAverage(Metric):
    """An exponential moving average: ``alpha * average + (1 - alpha) * value``.

    It begins with the first value, and neither waits for the device nor talks to other ranks at an
    iteration: until the epoch ends, ``engine.state.metrics`` has this rank's average, a number
    where numbers or 0-d tensors on the CPU are averaged, and where other tensors are, a tensor on
    their device (which prints and compares like a number). At the end of the epoch, and by
    ``compute``, it is the mean over the
    ranks, as a Python number.

    Args:
        src: the metric to average: its value over each batch, or with
            :class:`~cookfire.metrics.RunningEpochWise` over each epoch. None: an output is
            averaged. A metric that is itself attached to an engine keeps its state: a copy of it
            is averaged.
        alpha: how much of the average is kept; 0.98 looks back over about 50 values.
        output_transform: turns the engine's output into the number or tensor to average; needed
            without ``src``, and not allowed with it.
        epoch_bound: deprecated; True is the usage ``SingleEpochRunningBatchWise``, False is
            ``RunningBatchWise``.
        device: where the average is kept; None: where the values are.
        skip_unrolling: see :class:`~cookfire.metrics.Metric`.

    Raises:
        TypeError: ``src`` is no metric, or ``alpha`` no number; by ``update``, neither
            a number nor a tensor.
        ValueError: ``alpha`` is not in (0, 1]; both or neither of ``src`` and
            ``output_transform``; ``device`` with ``src``.

    Example:
        >>> average = RunningAverage(output_transform=lambda loss: loss, alpha=0.9)
        >>> for loss in (1.0, 2.0):
        ...     average.update(loss)
        >>> average.compute()
        1.1
    """

    required_output_keys = None

    value = MetricState(torch.float64, reduction="mean", shape=None)

    def __init__(
        self,
        src: Metric | None = None,
        alpha: float = 0.98,
        output_transform: Callable[[Any], Any] | None = None,
        epoch_bound: bool | None = None,
        device: str | torch.device | None = None,
        skip_unrolling: bool = False,
    ) -> None:
        if src is not None and not isinstance(src, Metric):
            raise TypeError(f"src must be a metric or None, got {src!r}")
        need_number("alpha", alpha)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, got {alpha}")
        if (src is None) == (output_transform is None):
            raise ValueError(
                "give either src, a metric, or output_transform, which turns the engine's output "
                "into what is averaged"
            )
        if src is not None and device is not None:
            raise ValueError("device has no effect beside src: give it to src")
        if epoch_bound is not None:
            warnings.warn(
                "epoch_bound is deprecated: attach with the usage "
                f"{'SingleEpochRunningBatchWise' if epoch_bound else 'RunningBatchWise'}()",
                DeprecationWarning,
                stacklevel=2,
            )
        self.src = src
        self.alpha = alpha
        self.epoch_bound = epoch_bound
        self._weight = 1 - alpha
        self._over_epochs = False
        self._handles: list[RemovableEventHandle] = []
        super().__init__(output_transform or _nothing, device, skip_unrolling)

    def reset(self) -> None:
        """Forget the average, and what ``src`` accumulated."""
        super().reset()
        if self.src is not None:
            self.src.reset()

    def update(self, output: Tensor | float | None) -> None:
        """Take in a value; with ``src`` its value since the last update, and reset it."""
        local = self._store.local
        value = output if self.src is None else self._take_source(self.src)
        old = local.values["value"]
        assert not isinstance(old, list | Pieces)
        if isinstance(value, Tensor) and self._device is None and is_at_hand(value):
            value = value.item()  # a number is cheaper to average than a tensor
        if isinstance(value, Tensor):
            value = self._prepare(value)
            if isinstance(old, Tensor):
                if old.device != value.device:
                    old = old.to(value.device)
                if old.dtype is not value.dtype:
                    value = value.to(old.dtype)
                local.values["value"] = torch.lerp(old, value, self._weight)
                local.updates += 1
                return
        elif not isinstance(value, int | float):
            raise TypeError(
                f"RunningAverage takes a number or a tensor, got {value!r} "
                f"({type(value).__name__}): choose one by output_transform"
            )
        if old is None:
            # The first tensor may be written into by its owner.
            local.values["value"] = value.clone() if isinstance(value, Tensor) else value
        else:
            local.values["value"] = old * self.alpha + value * self._weight
        local.updates += 1

    def compute(self) -> float | Tensor:
        """Return the mean over the ranks.

        Raises:
            NotComputableError: there was no value on any rank.
        """
        return self.value

    def attach(
        self, engine: Engine, name: str, usage: str | MetricUsage = RUNNING_BATCH_WISE
    ) -> None:
        """Have the engine average, and put the average into ``engine.state.metrics[name]``.

        Args:
            engine: whose output, or whose ``src``, is averaged.
            name: under which the average is found.
            usage: ``RunningBatchWise`` over batches, ``SingleEpochRunningBatchWise`` over the
                batches of an epoch, ``RunningEpochWise`` over epochs.
        """
        from cookfire.metrics._attached import attached_metrics

        usage = self._usage(usage)
        attached = attached_metrics(engine, usage)
        attached.add(self, name)
        used = attached.used_for(self)
        assert isinstance(used, RunningAverage)
        if used.src is not None and usage.ITERATION_COMPLETED is not Events.ITERATION_COMPLETED:
            used._over_epochs = True
            used._handles = [
                engine.add_event_handler(Events.EPOCH_STARTED, used._source_started),
                engine.add_event_handler(Events.ITERATION_COMPLETED, used.src.iteration_completed),
            ]

    def detach(self, engine: Engine, usage: str | MetricUsage = RUNNING_BATCH_WISE) -> None:
        """Undo ``attach``."""
        from cookfire.metrics._attached import find_attached_metrics

        attached = find_attached_metrics(engine, self._usage(usage))
        if attached is not None and self in attached:
            used = attached.used_for(self)
            assert isinstance(used, RunningAverage)
            for handle in used._handles:
                handle.remove()
            used._handles, used._over_epochs = [], False
            attached.remove(self)

    def is_attached(self, engine: Engine, usage: str | MetricUsage = RUNNING_BATCH_WISE) -> bool:
        """Tell whether the engine computes this average with this usage."""
        return super().is_attached(engine, self._usage(usage))

    def iteration_completed(self, engine: Engine) -> None:
        """Update with the engine's output."""
        if self.src is None:
            self.update(self._output_transform(engine.state.output))
            return
        if not self._over_epochs:
            self.src.iteration_completed(engine)
        self.update(None)

    def _usage(self, usage: str | MetricUsage) -> MetricUsage:
        if self.epoch_bound is None:
            return find_usage(usage)
        return SingleEpochRunningBatchWise() if self.epoch_bound else RUNNING_BATCH_WISE

    def _is_lazy(self, usage: MetricUsage) -> bool:
        return usage.COMPLETED is Events.ITERATION_COMPLETED

    def _take_source(self, source: Metric) -> Any:
        # Of an epoch all ranks know the value; of a batch each knows its own.
        value = source.compute() if self._over_epochs else source._value_here()
        source.reset()
        return value

    def _source_started(self, engine: Engine) -> None:
        if engine.epoch_iteration == 0 and self.src is not None:
            self.src.reset()

    def _prepare(self, value: Tensor) -> Tensor:
        if value.requires_grad:
            value = value.detach()
        if value.dtype is not torch.float32 and value.dtype is not torch.float64:
            value = value.float()  # what is half precise would lose the small steps
        return value if self._device is None else value.to(self._device)

    def _value_here(self) -> Any:
        return self._store.local.values["value"]

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_handles": [], "_over_epochs": False}
