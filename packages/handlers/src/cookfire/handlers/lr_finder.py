"""Looking for a learning rate."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers._objects import check_objects
from cookfire.handlers._optimizer_schedulers import LambdaScheduler
from cookfire.handlers._run_state import RunState
from cookfire.handlers.schedules import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FastaiLRFinder"]


class FastaiLRFinder:
    """Trains with a learning rate that grows until the loss diverges, and suggests one.

    The range test of L. N. Smith, Cyclical Learning Rates for Training Neural Networks (2017), as
    the fastai library does it. The suggestion is where the smoothed loss falls most steeply.

    Afterwards the run is as if it had not been: the objects named in ``to_save``, the trainer, what
    is attached to it and has a state, and all random states are restored to the bit.

    Example:
        >>> from math import log10
        >>> group = optimizer.param_groups[0]
        >>> trainer = Engine(lambda engine, batch: 1 + (log10(group["lr"]) + 1) ** 4)
        >>> finder, to_save = FastaiLRFinder(), {"model": model, "optimizer": optimizer}
        >>> with finder.attach(trainer, to_save, start_lr=1e-3, end_lr=1e3) as search:
        ...     state = search.run([0] * 60)
        >>> sorted(finder.get_results())
        ['loss', 'lr']
        >>> finder.apply_suggested_lr(optimizer)
    """

    def __init__(self) -> None:
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self._history: dict[str, list[Any]] = {}
        self._diverged = False

    @contextmanager
    def attach(
        self,
        trainer: Engine,
        to_save: Mapping[str, Any],
        output_transform: Callable[[Any], Any] = lambda output: output,
        num_iter: int | None = None,
        start_lr: float | list[float] | None = None,
        end_lr: float | list[float] | None = 10.0,
        step_mode: str = "exp",
        smooth_f: float = 0.05,
        diverge_th: float = 5.0,
    ) -> Iterator[Engine]:
        """Make the next run of ``trainer`` the search; restore everything afterwards.

        Handlers of the trainer run as ever; loggers and checkpoints are better attached later.

        Args:
            trainer: the trainer. Schedules that are attached already are overruled.
            to_save: what to restore, with ``"optimizer"`` among it: the model, a gradient scaler,
                whatever the step changes.
            output_transform: from the step's output to the loss, a number.
            num_iter: iterations of the search; by default those of the run.
            start_lr: the first learning rate, for all groups or for each; the optimizer's own by
                default.
            end_lr: the last one.
            step_mode: ``"exp"``: it grows by the same factor each iteration; ``"linear"``.
            smooth_f: the part of a new loss in the smoothed one; 0 for no smoothing.
            diverge_th: the search ends when the smoothed loss is so many times the best one.

        Yields:
            The trainer.

        Raises:
            TypeError: an object has no state, or the loss is no number.
            ValueError: there is no optimizer, or a number is out of range.
        """
        optimizer = _check(to_save, num_iter, step_mode, smooth_f, diverge_th)
        starts = _per_group("start_lr", start_lr, optimizer)
        ends = _per_group("end_lr", end_lr, optimizer)
        for start, end in zip(starts, ends, strict=True):
            if not 0 < start < end:
                raise ValueError(f"expected 0 < start_lr < end_lr, got {start_lr} and {end_lr}")
        run_state = RunState(trainer, **{k: v for k, v in to_save.items() if k != "trainer"})
        saved = copy.deepcopy(run_state.state_dict())
        status, attributes = trainer.status, _shallow_copies(vars(trainer.state))

        def begin(engine: Engine) -> None:
            self._history, self._diverged = {"lr": [], "loss": []}, False
            state, count = engine.state, num_iter
            if count is None:
                count = state.max_iters or (state.epoch_length or 0) * (state.max_epochs or 0)
                if not count:
                    raise ValueError("data without a length: the LR finder needs num_iter=")
            state.max_epochs, state.max_iters = None, count
            self._schedulers = [
                LambdaScheduler(
                    optimizer, "lr", _range(step_mode, start, end, count), param_group_index=index
                )
                for index, (start, end) in enumerate(zip(starts, ends, strict=True))
            ]

        def set_lr() -> None:
            for scheduler in self._schedulers:
                scheduler(None)

        def look(engine: Engine) -> None:
            self._look(optimizer, output_transform(engine.state.output), smooth_f)
            losses = self._history["loss"]
            best = min(losses)  # which may be negative
            if losses[-1] > best + (diverge_th - 1) * abs(best) or losses[-1] != losses[-1]:
                self._diverged = True
                self.logger.info("stopped: the loss has diverged")
                engine.terminate()

        handles = [
            trainer.add_event_handler(Events.STARTED, begin),
            trainer.add_event_handler(Events.ITERATION_STARTED, set_lr),
            trainer.add_event_handler(Events.ITERATION_COMPLETED, look),
        ]
        try:
            yield trainer
        finally:
            for handle in handles:
                handle.remove()
            run_state.load_state_dict(saved)
            vars(trainer.state).clear()
            vars(trainer.state).update(attributes)
            trainer.status = status
        if self._history and not self._diverged:
            warnings.warn(
                "the loss has not diverged: increase end_lr, decrease diverge_th, or look at "
                "plot()",
                stacklevel=3,
            )

    def get_results(self) -> dict[str, list[Any]]:
        """Return the learning rate in force (a list of several groups') and the smoothed loss.

        Returns:
            ``{"lr": [...], "loss": [...]}``, with an item for each iteration of the last search.
        """
        return self._history

    def lr_suggestion(self) -> float | list[float]:
        """Return the learning rate at which the loss fell most steeply: a list of several groups'.

        Raises:
            RuntimeError: there was no search, or the loss rose from the beginning.
        """
        losses = self._results("lr_suggestion")["loss"]
        falling = torch.tensor(losses[: losses.index(min(losses)) + 1], dtype=torch.float64)
        if len(falling) < 3:
            raise RuntimeError(
                "the loss does not fall before it rises: decrease start_lr or increase end_lr"
            )
        slopes = (falling[2:] - falling[:-2]) / 2
        suggested: float | list[float] = self._history["lr"][int(slopes.argmin()) + 1]
        return suggested

    def apply_suggested_lr(self, optimizer: Optimizer) -> None:
        """Set the learning rates of ``optimizer`` to the suggestion.

        Raises:
            RuntimeError: it has another number of groups than the one of the search, or there is
                no suggestion.
        """
        suggested = self.lr_suggestion()
        values = suggested if isinstance(suggested, list) else [suggested]
        if len(values) != len(optimizer.param_groups):
            raise RuntimeError(
                f"the search was done with {len(values)} parameter groups, the optimizer has "
                f"{len(optimizer.param_groups)}"
            )
        for group, value in zip(optimizer.param_groups, values, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def plot(
        self,
        skip_start: int = 10,
        skip_end: int = 5,
        log_lr: bool = True,
        display_suggestion: bool = True,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Axes:
        """Draw the loss over the learning rate; return matplotlib's axes.

        Args:
            skip_start: iterations to leave out at the beginning.
            skip_end: and at the end, where the loss is so high that nothing else could be seen.
            log_lr: a logarithmic axis.
            display_suggestion: mark the suggested learning rates.
            ax: axes to draw on; new ones by default.
            kwargs: for the figure's ``savefig``: ``fname="lr.png"`` saves it.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            RuntimeError: there was no search.
            ValueError: a number is negative.
        """
        if skip_start < 0 or skip_end < 0:
            raise ValueError(f"can't leave out {skip_start} and {skip_end} iterations")
        results = self._results("plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        end = len(results["lr"]) - skip_end
        lrs, losses = results["lr"][skip_start:end], results["loss"][skip_start:end]
        rows = [lr if isinstance(lr, list) else [lr] for lr in lrs]
        for number, values in enumerate(zip(*rows, strict=True)):
            (line,) = ax.plot(values, losses, label=f"group {number}")
            if display_suggestion:
                suggested = self.lr_suggestion()
                value = suggested[number] if isinstance(suggested, list) else suggested
                ax.axvline(value, color=line.get_color(), linestyle=":")
        if log_lr:
            ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        if rows and len(rows[0]) > 1:
            ax.legend()
        if kwargs:
            figure: Any = ax.figure
            figure.savefig(**kwargs)
        return ax

    def _results(self, what: str) -> dict[str, list[Any]]:
        if not self._history.get("loss"):
            raise RuntimeError(f"{what}: there was no search yet; run the trainer in attach()")
        return self._history

    def _look(self, optimizer: Optimizer, loss: Any, smooth_f: float) -> None:
        if isinstance(loss, Tensor) and loss.numel() == 1:
            loss = loss.item()
        if not isinstance(loss, int | float):
            raise TypeError(
                f"the LR finder needs the loss, a number; got {type(loss).__name__}. Say where it "
                "is in the step's output: output_transform=lambda output: output['loss']"
            )
        if idist.get_world_size() > 1:
            loss = idist.all_reduce(float(loss)) / idist.get_world_size()
        losses = self._history["loss"]
        if losses and smooth_f > 0:
            loss = smooth_f * loss + (1 - smooth_f) * losses[-1]
        losses.append(loss)
        lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self._history["lr"].append(lrs[0] if len(lrs) == 1 else lrs)


def _shallow_copies(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in attributes.items()
    }


def _range(step_mode: str, start: float, end: float, count: int) -> Schedule:
    last = max(count - 1, 1)
    if step_mode == "exp":
        return lambda step: start * (end / start) ** (step / last)
    return lambda step: start + (end - start) * step / last


def _per_group(
    name: str, value: float | Sequence[float] | None, optimizer: Optimizer
) -> list[float]:
    groups = optimizer.param_groups
    if value is None:
        return [float(group["lr"]) for group in groups]
    if isinstance(value, int | float):
        return [float(value)] * len(groups)
    if not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a number or a list of them, got {type(value).__name__}")
    if len(value) != len(groups):
        raise ValueError(f"{name}: expected one for each of {len(groups)} groups, got {value}")
    if not all(isinstance(one, int | float) for one in value):
        raise TypeError(f"{name} must be a number or a list of them, got {value!r}")
    return list(value)


def _check(
    to_save: Mapping[str, Any],
    num_iter: int | None,
    step_mode: str,
    smooth_f: float,
    diverge_th: float,
) -> Optimizer:
    check_objects(to_save, "to_save", "state_dict")
    check_objects(to_save, "to_save", "load_state_dict")
    if "optimizer" not in to_save:
        raise ValueError(f"to_save must have the 'optimizer', it has {sorted(to_save)}")
    optimizer = to_save["optimizer"]
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"to_save['optimizer'] must be an optimizer, got {type(optimizer).__name__}"
        )
    if num_iter is not None and (not isinstance(num_iter, int) or num_iter < 1):
        raise ValueError(f"num_iter must be at least 1 iteration, got {num_iter!r}")
    if step_mode not in ("exp", "linear"):
        raise ValueError(f"step_mode must be 'exp' or 'linear', got {step_mode!r}")
    if not 0 <= smooth_f < 1:
        raise ValueError(f"smooth_f must be at least 0 and below 1, got {smooth_f!r}")
    if not diverge_th >= 1:
        raise ValueError(f"diverge_th must be at least 1, got {diverge_th!r}")
    return optimizer
