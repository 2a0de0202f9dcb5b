"""The usual handlers of a training in one call."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.handlers._score import get_default_score_fn
from cookfire.handlers.checkpoint import BaseSaveHandler, Checkpoint, DiskSaver
from cookfire.handlers.early_stopping import EarlyStopping
from cookfire.handlers.logger_utils import (
    setup_any_logging,
    setup_clearml_logging,
    setup_mlflow_logging,
    setup_neptune_logging,
    setup_plx_logging,
    setup_tb_logging,
    setup_trains_logging,
    setup_visdom_logging,
    setup_wandb_logging,
)
from cookfire.handlers.param_scheduler import LRScheduler
from cookfire.handlers.terminate_on_nan import TerminateOnNan
from cookfire.handlers.tqdm_logger import ProgressBar
from cookfire.handlers.utils import global_step_from_engine
from cookfire.metrics import GpuInfo, RunningAverage, RunningBatchWise

__all__ = [
    "add_early_stopping_by_val_score",
    "empty_cuda_cache",
    "gen_save_best_models_by_val_score",
    "get_default_score_fn",
    "save_best_model_by_val_score",
    "setup_any_logging",
    "setup_clearml_logging",
    "setup_common_training_handlers",
    "setup_mlflow_logging",
    "setup_neptune_logging",
    "setup_plx_logging",
    "setup_tb_logging",
    "setup_trains_logging",
    "setup_visdom_logging",
    "setup_wandb_logging",
]

SaveHandler = BaseSaveHandler | Callable[..., None]


def setup_common_training_handlers(
    trainer: Engine,
    train_sampler: Any = None,
    to_save: Mapping[str, Any] | None = None,
    save_every_iters: int = 1000,
    output_path: str | None = None,
    lr_scheduler: LRScheduler | TorchScheduler | Callable[[Engine], object] | None = None,
    with_gpu_stats: bool = False,
    output_names: Iterable[str] | None = None,
    with_pbars: bool = True,
    with_pbar_on_iters: bool = True,
    log_every_iters: int = 100,
    stop_on_nan: bool = True,
    clear_cuda_cache: bool = True,
    save_handler: SaveHandler | None = None,
    **kwargs: Any,
) -> None:
    """Attach what most trainings want; call it on every rank.

    Args:
        trainer: gets the handlers, in the order of the arguments' effects below.
        train_sampler: its ``set_epoch`` is called at each epoch, as a DistributedSampler needs it
            to shuffle. The loaders of ``cookfire.distributed`` need nothing.
        to_save: objects to save every ``save_every_iters`` iterations, as
            ``training_checkpoint_<iteration>.pt``; the newest is kept.
        save_every_iters: iterations between saves; 1000 by default.
        output_path: the folder to save to; or give ``save_handler``.
        lr_scheduler: a scheduler of torch, moved on after each iteration, or a handler such as
            :class:`LRScheduler`, called before each.
        with_gpu_stats: put the GPUs' memory and utilisation into the metrics, as
            :class:`~cookfire.metrics.GpuInfo` does.
        output_names: names of the step's outputs (keys of a dict, or in the order of a list; one
            for a single value), whose running averages go into the metrics.
        with_pbars: show progress bars, of the epochs and ...
        with_pbar_on_iters: ... of the iterations.
        log_every_iters: iterations between looks at the GPU and updates of the bar.
        stop_on_nan: attach :class:`TerminateOnNan`.
        clear_cuda_cache: return unused GPU memory after each epoch.
        save_handler: a saver or function, as for :class:`Checkpoint`.
        kwargs: for :class:`Checkpoint`, such as ``n_saved=2``.

    Raises:
        TypeError: ``train_sampler`` has no ``set_epoch``, ``lr_scheduler`` is neither,
            ``output_names`` is a string; when run: the step's output has no such items.
        ValueError: ``to_save`` without a place, or with two.
        RuntimeError, ModuleNotFoundError: what ``with_gpu_stats`` needs is not there.

    Example:
        >>> setup_common_training_handlers(
        ...     trainer, to_save={"model": model, "trainer": trainer}, output_path=folder,
        ...     save_every_iters=500, output_names=["loss"],
        ... )
    """
    if train_sampler is not None:
        _set_epochs(trainer, train_sampler)
    if stop_on_nan:
        trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan())
    if lr_scheduler is not None:
        _attach_scheduler(trainer, lr_scheduler)
    if clear_cuda_cache:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, empty_cuda_cache)
    if to_save is not None:
        saver = _saver(output_path, save_handler)
        checkpoint = Checkpoint(to_save, saver, **{"filename_prefix": "training"} | kwargs)
        event = Events.ITERATION_COMPLETED(every=save_every_iters)
        trainer.add_event_handler(event, checkpoint)
    if with_gpu_stats:
        GpuInfo().attach(trainer, event_name=Events.ITERATION_COMPLETED(every=log_every_iters))
    if isinstance(output_names, str):
        raise TypeError(f"output_names must be a list of names, got the string {output_names!r}")
    for index, name in enumerate(output_names or ()):
        average = RunningAverage(output_transform=partial(_output, index, name))
        average.attach(trainer, name, RunningBatchWise())
    if with_pbars and idist.get_rank() == 0:
        _attach_bars(trainer, log_every_iters if with_pbar_on_iters else None)


def empty_cuda_cache(_: Engine) -> None:
    """Return GPU memory that is cached but not used; a handler."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def gen_save_best_models_by_val_score(
    save_handler: SaveHandler,
    evaluator: Engine,
    models: nn.Module | Mapping[str, nn.Module],
    metric_name: str,
    n_saved: int = 3,
    trainer: Engine | None = None,
    tag: str = "val",
    score_sign: float = 1.0,
    **kwargs: Any,
) -> Checkpoint:
    """Save the models with the best values of a metric, whenever the evaluator completes.

    Args:
        save_handler: where to, as for :class:`Checkpoint`.
        evaluator: computes the metric.
        models: the model, or several by name.
        metric_name: in ``evaluator.state.metrics``.
        n_saved: how many to keep.
        trainer: its epoch goes into the files' names.
        tag: the score is called ``<tag>_<metric_name>`` there, in lower case.
        score_sign: 1.0, or -1.0 for a metric of which less is better.
        kwargs: for :class:`Checkpoint`.

    Returns:
        The attached handler.

    Raises:
        ValueError: when it runs: there is no such metric.
    """
    checkpoint = Checkpoint(
        {"model": models} if isinstance(models, nn.Module) else models,
        save_handler,
        filename_prefix="best",
        score_function=get_default_score_fn(metric_name, score_sign),
        score_name=f"{tag}_{metric_name.lower()}",
        n_saved=n_saved,
        global_step_transform=None if trainer is None else global_step_from_engine(trainer),
        **kwargs,
    )
    evaluator.add_event_handler(Events.COMPLETED, checkpoint)
    return checkpoint


def save_best_model_by_val_score(
    output_path: str,
    evaluator: Engine,
    model: nn.Module | Mapping[str, nn.Module],
    metric_name: str,
    n_saved: int = 3,
    trainer: Engine | None = None,
    tag: str = "val",
    score_sign: float = 1.0,
    **kwargs: Any,
) -> Checkpoint:
    """Save the models with the best values of a metric into a folder.

    As :func:`gen_save_best_models_by_val_score`, with ``output_path`` for the folder: files such
    as ``best_model_2_val_accuracy=0.3000.pt``.

    Example:
        >>> checkpoint = save_best_model_by_val_score(
        ...     folder, evaluator, model, metric_name="accuracy", n_saved=2, trainer=trainer
        ... )
    """
    return gen_save_best_models_by_val_score(
        DiskSaver(output_path, require_empty=False),
        evaluator,
        model,
        metric_name,
        n_saved,
        trainer,
        tag,
        score_sign,
        **kwargs,
    )


def add_early_stopping_by_val_score(
    patience: int,
    evaluator: Engine,
    trainer: Engine,
    metric_name: str,
    score_sign: float = 1.0,
) -> EarlyStopping:
    """Stop the trainer when a metric of the evaluator no longer gets better.

    Args:
        patience: evaluations without improvement.
        evaluator: computes the metric.
        trainer: the engine to stop.
        metric_name: in ``evaluator.state.metrics``.
        score_sign: 1.0, or -1.0 for a metric of which less is better.

    Returns:
        The attached handler.

    Example:
        >>> stopping = add_early_stopping_by_val_score(5, evaluator, trainer, "loss", -1.0)
    """
    score = get_default_score_fn(metric_name, score_sign)
    stopping = EarlyStopping(patience, score, trainer)
    stopping.attach(evaluator)
    return stopping


def _set_epochs(trainer: Engine, sampler: Any) -> None:
    if not callable(getattr(sampler, "set_epoch", None)):
        raise TypeError(
            f"train_sampler must have set_epoch(), as a DistributedSampler has; "
            f"{type(sampler).__name__} has none"
        )
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: sampler.set_epoch(engine.state.epoch - 1)
    )


def _attach_scheduler(trainer: Engine, scheduler: Any) -> None:
    if isinstance(scheduler, TorchScheduler):
        scheduler = LRScheduler(scheduler, use_legacy=True)
    if callable(scheduler):
        legacy = getattr(scheduler, "use_legacy", False)
        event = Events.ITERATION_COMPLETED if legacy else Events.ITERATION_STARTED
        trainer.add_event_handler(event, scheduler)
    else:
        raise TypeError(
            f"lr_scheduler must be a scheduler of torch or a handler, "
            f"got {type(scheduler).__name__}"
        )


def _saver(output_path: str | None, save_handler: SaveHandler | None) -> SaveHandler:
    if output_path is not None and save_handler is not None:
        raise ValueError("give output_path or save_handler, not both")
    if save_handler is not None:
        return save_handler
    if output_path is None:
        raise ValueError("to_save needs a place: give output_path or save_handler")
    return DiskSaver(output_path, require_empty=False)


def _output(index: int, name: str, output: Any) -> Any:
    """Return the output called ``name``, the ``index``-th."""
    if isinstance(output, Mapping):
        if name not in output:
            known = ", ".join(repr(key) for key in output)
            raise ValueError(f"output_names: the step's output has no {name!r}; it has {known}")
        return output[name]
    if isinstance(output, Sequence) and not isinstance(output, str):
        if index >= len(output):
            raise ValueError(
                f"output_names: {name!r} is number {index + 1}, "
                f"but the step's output has {len(output)} items"
            )
        return output[index]
    if isinstance(output, int | float | Tensor):
        return output
    raise TypeError(
        f"output_names: the step's output must be a number, a tensor, or a dict or list of them, "
        f"got {type(output).__name__}"
    )


def _attach_bars(trainer: Engine, every: int | None) -> None:
    if every is not None:
        ProgressBar(persist=False).attach(
            trainer, metric_names="all", event_name=Events.ITERATION_COMPLETED(every=every)
        )
    ProgressBar(persist=True).attach(
        trainer, event_name=Events.EPOCH_STARTED, closing_event_name=Events.COMPLETED
    )
