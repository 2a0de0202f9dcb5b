"""A tracker for a whole training in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from torch.optim import Optimizer

from cookfire.engine import Engine, EventEnum, Events
from cookfire.engine.events import AnyEvent
from cookfire.handlers.base_logger import BaseLogger
from cookfire.handlers.utils import global_step_from_engine

if TYPE_CHECKING:
    from cookfire.handlers.clearml_logger import ClearMLLogger
    from cookfire.handlers.mlflow_logger import MLflowLogger
    from cookfire.handlers.neptune_logger import NeptuneLogger
    from cookfire.handlers.polyaxon_logger import PolyaxonLogger
    from cookfire.handlers.tensorboard_logger import TensorboardLogger
    from cookfire.handlers.visdom_logger import VisdomLogger
    from cookfire.handlers.wandb_logger import WandBLogger

__all__ = [
    "setup_any_logging",
    "setup_clearml_logging",
    "setup_mlflow_logging",
    "setup_neptune_logging",
    "setup_plx_logging",
    "setup_tb_logging",
    "setup_trains_logging",
    "setup_visdom_logging",
    "setup_wandb_logging",
]

Optimizers = Optimizer | Mapping[str, Optimizer] | Mapping[None, Optimizer] | None
Evaluators = Engine | Mapping[str, Engine] | None
LoggerT = TypeVar("LoggerT", bound=BaseLogger, covariant=True)


def setup_tb_logging(
    output_path: str,
    trainer: Engine,
    optimizers: Optimizers = None,
    evaluators: Evaluators = None,
    log_every_iters: int = 100,
    *,
    trainer_metric_names: str | list[str] = "all",
    evaluator_metric_names: str | list[str] = "all",
    **kwargs: Any,
) -> TensorboardLogger:
    """Log metrics and learning rates to TensorBoard.

    Args:
        output_path: folder of the event file.
        trainer: its metrics are logged under ``training``, every ``log_every_iters`` iterations.
        optimizers: whose learning rates are logged; those of a dict under their keys.
        evaluators: their metrics are logged when they complete, at the trainer's epoch, under
            ``validation`` or, of a dict, under their keys.
        log_every_iters: iterations between records; 100 by default: reading a value makes the
            program wait for a GPU.
        trainer_metric_names: which metrics, or "all".
        evaluator_metric_names: which metrics, or "all".
        kwargs: for :class:`~cookfire.handlers.TensorboardLogger`.

    Returns:
        The logger; close it after the run.

    Raises:
        TypeError: optimizers or evaluators are of another kind.
        ModuleNotFoundError: TensorBoard is not installed; says what to install.

    Example:
        >>> logger = setup_tb_logging(folder, trainer, optimizer, evaluators={"test": evaluator})
        >>> state = trainer.run(data)
        >>> logger.close()
    """
    from cookfire.handlers.tensorboard_logger import TensorboardLogger

    logger = TensorboardLogger(log_dir=output_path, **kwargs)
    _attach(
        logger, trainer, optimizers, evaluators, log_every_iters,
        trainer_metric_names, evaluator_metric_names,
    )  # fmt: skip
    return logger


class _Setup(Protocol[LoggerT]):
    """What sets up a tracker; the arguments are those of :func:`setup_tb_logging`."""

    def __call__(
        self,
        trainer: Engine,
        optimizers: Optimizers = None,
        evaluators: Evaluators = None,
        log_every_iters: int = 100,
        *,
        trainer_metric_names: str | list[str] = "all",
        evaluator_metric_names: str | list[str] = "all",
        **kwargs: Any,
    ) -> LoggerT: ...


def _setup(find_class: Callable[[], type[LoggerT]]) -> _Setup[LoggerT]:
    """Make a set-up function of one that imports the logger's class, when it is called."""

    def setup(
        trainer: Engine,
        optimizers: Optimizers = None,
        evaluators: Evaluators = None,
        log_every_iters: int = 100,
        *,
        trainer_metric_names: str | list[str] = "all",
        evaluator_metric_names: str | list[str] = "all",
        **kwargs: Any,
    ) -> LoggerT:
        logger = find_class()(**kwargs)
        _attach(
            logger, trainer, optimizers, evaluators, log_every_iters,
            trainer_metric_names, evaluator_metric_names,
        )  # fmt: skip
        return logger

    setup.__name__, setup.__qualname__ = find_class.__name__, find_class.__qualname__
    setup.__doc__ = find_class.__doc__
    return setup


@_setup
def setup_visdom_logging() -> type[VisdomLogger]:
    """Log metrics and learning rates to Visdom.

    The arguments, what is raised, and the result: see :func:`setup_tb_logging`; ``kwargs`` are for
    :class:`~cookfire.handlers.VisdomLogger`.

    Example:
        >>> logger = setup_visdom_logging(trainer, optimizer, evaluator)  # doctest: +SKIP
    """
    from cookfire.handlers.visdom_logger import VisdomLogger

    return VisdomLogger


@_setup
def setup_mlflow_logging() -> type[MLflowLogger]:
    """Log metrics and learning rates to MLflow.

    The arguments, what is raised, and the result: see :func:`setup_tb_logging`; ``kwargs`` are for
    :class:`~cookfire.handlers.MLflowLogger`.

    Example:
        >>> logger = setup_mlflow_logging(trainer, optimizer, evaluators=evaluator)
    """
    from cookfire.handlers.mlflow_logger import MLflowLogger

    return MLflowLogger


@_setup
def setup_neptune_logging() -> type[NeptuneLogger]:
    """Log metrics and learning rates to Neptune.

    The arguments, what is raised, and the result: see :func:`setup_tb_logging`; ``kwargs`` are for
    :class:`~cookfire.handlers.NeptuneLogger`.

    Example:
        >>> logger = setup_neptune_logging(trainer, optimizer, evaluator)  # doctest: +SKIP
    """
    from cookfire.handlers.neptune_logger import NeptuneLogger

    return NeptuneLogger


@_setup
def setup_wandb_logging() -> type[WandBLogger]:
    """Log metrics and learning rates to Weights & Biases.

    The arguments, what is raised, and the result: see :func:`setup_tb_logging`; ``kwargs`` are for
    :class:`~cookfire.handlers.WandBLogger`.

    Example:
        >>> logger = setup_wandb_logging(trainer, optimizer, evaluator)  # doctest: +SKIP
    """
    from cookfire.handlers.wandb_logger import WandBLogger

    return WandBLogger


@_setup
def setup_plx_logging() -> type[PolyaxonLogger]:
    """Log metrics and learning rates to Polyaxon.

    The arguments, what is raised, and the result: see :func:`setup_tb_logging`; ``kwargs`` are for
    :class:`~cookfire.handlers.PolyaxonLogger`.

    Example:
        >>> logger = setup_plx_logging(trainer, optimizer, evaluator)  # doctest: +SKIP
    """
    from cookfire.handlers.polyaxon_logger import PolyaxonLogger

    return PolyaxonLogger


@_setup
def setup_clearml_logging() -> type[ClearMLLogger]:
    """Log metrics and learning rates to ClearML.

    The arguments, what is raised, and the result: see :func:`setup_tb_logging`; ``kwargs`` are for
    :class:`~cookfire.handlers.ClearMLLogger`.

    Example:
        >>> logger = setup_clearml_logging(trainer, optimizer, evaluator)  # doctest: +SKIP
    """
    from cookfire.handlers.clearml_logger import ClearMLLogger

    return ClearMLLogger


@_setup
def setup_trains_logging() -> type[ClearMLLogger]:
    """Log to ClearML under its former name; as :func:`setup_clearml_logging`, with a warning."""
    warnings.warn(
        "Trains is now ClearML: use setup_clearml_logging", DeprecationWarning, stacklevel=3
    )
    from cookfire.handlers.clearml_logger import ClearMLLogger

    return ClearMLLogger


def setup_any_logging(
    logger: BaseLogger,
    logger_module: Any,  # noqa: ARG001 - ignite's scripts pass it
    trainer: Engine,
    optimizers: Optimizers,
    evaluators: Evaluators,
    log_every_iters: int,
) -> None:
    """Attach a logger of your own as :func:`setup_tb_logging` does with TensorBoard's.

    Args:
        logger: the logger.
        logger_module: not used.
        trainer: see :func:`setup_tb_logging`, as for those that follow.
        optimizers: whose learning rates are logged.
        evaluators: whose metrics are logged.
        log_every_iters: iterations between records.

    Raises:
        TypeError: optimizers or evaluators are of another kind.
    """
    _attach(logger, trainer, optimizers, evaluators, log_every_iters, "all", "all")


def _attach(
    logger: BaseLogger,
    trainer: Engine,
    optimizers: Optimizers,
    evaluators: Evaluators,
    log_every_iters: int | None,
    trainer_metric_names: str | list[str],
    evaluator_metric_names: str | list[str],
) -> None:
    by_optimizer = _by_tag("optimizers", optimizers, Optimizer, None)
    by_evaluator = _by_tag("evaluators", evaluators, Engine, "validation")
    logger.attach_output_handler(
        trainer,
        _every(Events.ITERATION_COMPLETED, log_every_iters),
        tag="training",
        metric_names=trainer_metric_names,
    )
    for tag, optimizer in by_optimizer.items():
        logger.attach_opt_params_handler(
            trainer,
            _every(Events.ITERATION_STARTED, log_every_iters),
            optimizer,
            param_name="lr",
            tag=tag,
        )
    for tag, evaluator in by_evaluator.items():
        logger.attach_output_handler(
            evaluator,
            Events.COMPLETED,
            tag=tag,
            metric_names=evaluator_metric_names,
            global_step_transform=global_step_from_engine(trainer),
        )


def _every(event: EventEnum, iterations: int | None) -> AnyEvent:
    return event if iterations in (None, 1) else event(every=iterations)


def _by_tag(name: str, given: Any, kind: type, tag: str | None) -> dict[Any, Any]:
    things = {} if given is None else given if isinstance(given, Mapping) else {tag: given}
    for thing in things.values():
        if not isinstance(thing, kind):
            raise TypeError(
                f"{name} must be an {kind.__name__}, or a dict of them, got {type(thing).__name__}"
            )
    return dict(things)
