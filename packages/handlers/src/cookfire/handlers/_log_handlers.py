"""The handlers that all trackers share: what to read from an engine, a model, an optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cookfire.engine import CallableEventWithFilter, Engine, EventEnum
from cookfire.handlers._log_values import EngineValues

if TYPE_CHECKING:
    from cookfire.handlers.base_logger import BaseLogger

__all__ = [
    "BaseHandler",
    "BaseOptimizerParamsHandler",
    "BaseOutputHandler",
    "BaseWeightsHandler",
    "BaseWeightsScalarHandler",
    "GradsHistHandler",
    "GradsScalarHandler",
    "OptimizerParamsHandler",
    "OutputHandler",
    "WeightsHistHandler",
    "WeightsScalarHandler",
]

Event = EventEnum | CallableEventWithFilter | str
StepTransform = Callable[[Engine, Any], int]
OutputTransform = Callable[[Any], Any]
Whitelist = Sequence[str] | Callable[[str, nn.Parameter], bool]
Reduction = Callable[[Tensor], float | Tensor]


class BaseHandler(ABC):
    """A handler that loggers attach: called with the engine, the logger and the event."""

    @abstractmethod
    def __call__(self, engine: Engine, logger: BaseLogger, event_name: Event) -> None:
        """Log something."""

    def log(self, logger: BaseLogger, values: Mapping[str, object], step: int) -> None:
        """Log numbers; a tracker's own handlers add what is theirs."""
        logger.log_metrics(values, step)


class OutputHandler(BaseHandler):
    """Logs an engine's output, its metrics and attributes of its state, as ``tag/name``.

    A metric that is missing is said once, with those that exist.

    Args:
        tag: prefix of the names, such as "training"; "" for none.
        metric_names: "all", or a list of names in ``engine.state.metrics``.
        output_transform: function of ``engine.state.output`` that returns a number, or a
            dictionary of numbers by name; a single number is called ``output``.
        global_step_transform: function ``(engine, event_name) -> int`` that returns what to plot
            over; default: the engine's own count of the event (an epoch at EPOCH_COMPLETED and
            COMPLETED). An evaluator's values belong to its trainer's epoch:
            ``global_step_from_engine(trainer)``.
        state_attributes: names of attributes of ``engine.state``.

    Raises:
        ValueError: nothing to log was named.
        TypeError: an argument is of the wrong kind.

    Example:
        >>> handler = OutputHandler("training", output_transform=lambda loss: {"loss": loss})
        >>> logger.attach(trainer, handler, Events.ITERATION_COMPLETED(every=100))  # doctest: +SKIP
    """

    def __init__(
        self,
        tag: str,
        metric_names: str | list[str] | None = None,
        output_transform: OutputTransform | None = None,
        global_step_transform: StepTransform | None = None,
        state_attributes: list[str] | None = None,
    ) -> None:
        self.tag = tag
        self.values = EngineValues(metric_names, output_transform, state_attributes)
        if not self.values:
            raise ValueError(
                "nothing to log: give metric_names, output_transform or state_attributes"
            )
        if not (global_step_transform is None or callable(global_step_transform)):
            raise TypeError(
                "global_step_transform must be a function of the engine and the event, "
                f"got {global_step_transform!r} ({type(global_step_transform).__name__})"
            )
        self.global_step_transform = global_step_transform

    def __call__(self, engine: Engine, logger: BaseLogger, event_name: Event) -> None:
        """Log the values over the step."""
        if self.global_step_transform is None:
            step = engine.state.get_event_attrib_value(event_name)
        else:
            step = self.global_step_transform(engine, event_name)
        # Read in every process, for a transform that communicates.
        values = self.values.read(engine)
        if logger.writes:
            for name, sentence in self.values.missing(engine).items():
                who = f"{type(logger).__name__} (tag {self.tag!r}, event '{event_name}')"
                logger._warn_once((self, name), f"{who}: {sentence}")
            self.log(logger, {self.tag: values}, step)


class OptimizerParamsHandler(BaseHandler):
    """Logs a parameter of an optimizer's groups, as ``tag/lr/group_0``.

    Args:
        optimizer: an optimizer, or anything with ``param_groups``.
        param_name: name of the parameter in each group.
        tag: prefix of the names; none by default.

    Raises:
        TypeError: ``optimizer`` has no ``param_groups``.
        ValueError: its groups have no such parameter.

    Example:
        >>> handler = OptimizerParamsHandler(optimizer, "momentum")  # doctest: +SKIP
    """

    def __init__(
        self, optimizer: Optimizer, param_name: str = "lr", tag: str | None = None
    ) -> None:
        groups = getattr(optimizer, "param_groups", None)
        if not isinstance(groups, list | tuple):
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer or have param_groups, "
                f"got {type(optimizer).__name__}"
            )
        if groups and not any(param_name in group for group in groups):
            names = ", ".join(sorted(key for key in groups[0] if key != "params"))
            raise ValueError(f"{type(optimizer).__name__} has no {param_name!r}; it has {names}")
        self.optimizer = optimizer
        self.param_name = param_name
        self.tag = tag

    def __call__(self, engine: Engine, logger: BaseLogger, event_name: Event) -> None:
        """Log the parameter over the event's count."""
        step = engine.state.get_event_attrib_value(event_name)
        values = {
            f"group_{index}": group[self.param_name]
            for index, group in enumerate(self.optimizer.param_groups)
            if self.param_name in group
        }
        self.log(logger, {self.tag or "": {self.param_name: values}}, step)


class BaseWeightsHandler(BaseHandler):
    """Goes over a model's parameters, or those that a whitelist names.

    Names are those of the bare model, whether it is wrapped (DistributedDataParallel,
    ``torch.compile``) or not.

    Args:
        model: the model.
        tag: prefix of the names; none by default.
        whitelist: beginnings of parameters' names (``["fc", "conv.0"]``), or a function
            ``(name, parameter) -> bool``; default: all parameters.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an entry of the whitelist is the beginning of no parameter's name.
    """

    of_gradients = False

    def __init__(
        self, model: nn.Module, tag: str | None = None, whitelist: Whitelist | None = None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if isinstance(whitelist, str) or not (
            whitelist is None or callable(whitelist) or isinstance(whitelist, Sequence)
        ):
            raise TypeError(f"whitelist must be a list of names or a function, got {whitelist!r}")
        self.model = model
        self.tag = tag
        self.whitelist = whitelist
        if isinstance(whitelist, Sequence):
            names = [name for name, _ in _named_parameters(model)]
            for entry in whitelist:
                if not any(name.startswith(entry) for name in names):
                    raise ValueError(
                        f"whitelist: no parameter's name begins with {entry!r}; "
                        f"there are {', '.join(names) or 'none'}"
                    )

    def _tensors(self, logger: BaseLogger) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and the whole weights or gradients."""
        for name, parameter in _named_parameters(self.model):
            tensor = parameter.grad if self.of_gradients else parameter
            if tensor is None or not self._is_listed(name, parameter):
                continue
            tensor = tensor.detach()
            if hasattr(tensor, "full_tensor"):  # sharded: gathering takes part in every process
                tensor = tensor.full_tensor()
            if logger.writes:
                yield name.replace(".", "/"), tensor

    def _is_listed(self, name: str, parameter: nn.Parameter) -> bool:
        if self.whitelist is None:
            return True
        if isinstance(self.whitelist, Sequence):
            return any(name.startswith(entry) for entry in self.whitelist)
        return bool(self.whitelist(name, parameter))


class WeightsScalarHandler(BaseWeightsHandler):
    """Logs a number for each of a model's weights, as ``tag/weights_norm/conv/0/weight``.

    Args:
        model: the model.
        reduction: function of a tensor that returns a number or a tensor of one element; its name
            is part of the logged names.
        tag: prefix of the names; none by default.
        whitelist: see :class:`BaseWeightsHandler`.

    Raises:
        TypeError: an argument is of the wrong kind, or the reduction returns no number.

    Example:
        >>> handler = WeightsScalarHandler(torch.nn.Linear(2, 1), whitelist=["weight"])
        >>> logger.attach(trainer, handler, Events.EPOCH_COMPLETED)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        reduction: Reduction = torch.norm,
        tag: str | None = None,
        whitelist: Whitelist | None = None,
    ) -> None:
        super().__init__(model, tag, whitelist)
        if not callable(reduction):
            raise TypeError(f"reduction must be a function of a tensor, got {reduction!r}")
        result = reduction(torch.ones(2))
        if torch.as_tensor(result).numel() != 1:
            raise TypeError(f"reduction must return a number, got {result!r} for two ones")
        self.reduction = reduction

    @torch.no_grad()
    def __call__(self, engine: Engine, logger: BaseLogger, event_name: Event) -> None:
        """Log the numbers over the event's count."""
        step = engine.state.get_event_attrib_value(event_name)
        what = "grads" if self.of_gradients else "weights"
        how = getattr(self.reduction, "__name__", type(self.reduction).__name__)
        # The numbers are read afterwards, all at once, so that a GPU is waited for once.
        reduced = [(name, self.reduction(tensor)) for name, tensor in self._tensors(logger)]
        values = {name: float(value) for name, value in reduced}
        self.log(logger, {self.tag or "": {f"{what}_{how}": values}}, step)


class GradsScalarHandler(WeightsScalarHandler):
    """Logs a number for each of a model's gradients, as ``tag/grads_norm/conv/0/weight``.

    Parameters without a gradient are left out; see :class:`WeightsScalarHandler`. With automatic
    mixed precision the gradients are scaled until the scaler's ``unscale_``.

    Example:
        >>> handler = GradsScalarHandler(model, torch.mean, tag="generator")  # doctest: +SKIP
    """

    of_gradients = True


class WeightsHistHandler(BaseWeightsHandler):
    """Logs the distribution of each of a model's weights, as ``tag/weights/conv/0/weight``.

    See :class:`BaseWeightsHandler` for the arguments.

    Example:
        >>> logger.attach(  # doctest: +SKIP
        ...     trainer, WeightsHistHandler(model), Events.EPOCH_COMPLETED(every=5)
        ... )
    """

    def __call__(self, engine: Engine, logger: BaseLogger, event_name: Event) -> None:
        """Log the distributions over the event's count."""
        step = engine.state.get_event_attrib_value(event_name)
        prefix = f"{self.tag}/" if self.tag else ""
        what = "grads" if self.of_gradients else "weights"
        for name, tensor in self._tensors(logger):
            logger.log_histogram(tensor, f"{prefix}{what}/{name}", step)


class GradsHistHandler(WeightsHistHandler):
    """Logs the distribution of each of a model's gradients, as ``tag/grads/conv/0/weight``.

    Parameters without a gradient are left out; see :class:`BaseWeightsHandler`.

    Example:
        >>> handler = GradsHistHandler(model, whitelist=["conv1"])  # doctest: +SKIP
    """

    of_gradients = True


BaseOutputHandler = OutputHandler
BaseOptimizerParamsHandler = OptimizerParamsHandler
BaseWeightsScalarHandler = WeightsScalarHandler


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters under the names that they have in the bare model."""
    while True:
        compiled = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(compiled, nn.Module):
            model = compiled
        else:
            return iter(model.named_parameters())
