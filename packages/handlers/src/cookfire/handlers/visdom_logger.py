"""Visdom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cookfire.handlers import base_logger
from cookfire.handlers._arrays import pixels
from cookfire.handlers._log_handlers import OutputTransform, Reduction, StepTransform, Whitelist
from cookfire.handlers._log_values import flatten
from cookfire.handlers._run_logger import RunLogger
from cookfire.handlers.base_logger import (
    BaseLogger,
    GradsHistHandler,
    WeightsHistHandler,
    global_step_from_engine,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GradsHistHandler",
    "GradsScalarHandler",
    "OptimizerParamsHandler",
    "OutputHandler",
    "VisdomLogger",
    "WeightsHistHandler",
    "WeightsScalarHandler",
    "global_step_from_engine",
]


class VisdomLogger(RunLogger):
    """Draws metrics, images, figures and histograms on a Visdom server, a window for each name.

    The windows are named like what they show, so that a continued run draws on. ``close`` lets
    the server save the environment. Start a server by ``python -m visdom.server``; without one:
    ``offline=True, log_to_filename="run.log"``, for Visdom's ``replay_log``. ``logger.vis`` is
    Visdom's own object.

    Args:
        server: address; default: VISDOM_SERVER_URL, else "localhost".
        port: default: VISDOM_PORT, else 8097.
        num_workers: not used: a record is sent when it is logged, in order.
        raise_exceptions: False lets Visdom hide what fails, so that nothing is kept for later.
        kwargs: for ``visdom.Visdom``, such as ``env``; name and password are by default
            VISDOM_USERNAME and VISDOM_PASSWORD.

    Raises:
        ModuleNotFoundError: visdom is not installed.
        TypeError: ``visdom.Visdom`` takes no such argument.

    Example:
        >>> with VisdomLogger(env="cifar10") as logger:  # doctest: +SKIP
        ...     logger.attach_opt_params_handler(trainer, Events.EPOCH_STARTED, optimizer)
        ...     trainer.run(data, max_epochs=5)
    """

    package = "visdom"
    extra = False

    def __init__(
        self,
        server: str | None = None,
        port: int | None = None,
        num_workers: int = 1,  # noqa: ARG002 - ignite's scripts pass it
        raise_exceptions: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self._with_legend: set[str] = set()
        for option in ("username", "password"):
            kwargs.setdefault(option, os.environ.get(f"VISDOM_{option.upper()}"))
        server = server or os.environ.get("VISDOM_SERVER_URL", "localhost")
        port = port or int(os.environ.get("VISDOM_PORT", "8097"))
        if self.writes:
            self._options = self.checked(
                self.interface(),
                server=server,
                port=port,
                raise_exceptions=raise_exceptions,
                **kwargs,
            )

    @property
    def vis(self) -> Any:
        """Visdom's own object, connected if need be."""
        return self.run

    def start_run(self, run_id: str | None) -> tuple[Any, str]:
        """Connect to the server, and to the environment of a continued run."""
        continued = {} if run_id is None else {"env": run_id}
        vis = self.interface()(**self._options | continued)
        if not vis.offline and not vis.check_connection():
            raise ConnectionError(f"no Visdom server at {vis.server}:{vis.port}")
        return vis, vis.env

    def end_run(self, run: Any, error: type[BaseException] | None) -> None:  # noqa: ARG002 - the same either way
        """Let the server save the environment."""
        run.save([run.env])

    def interface(self) -> Any:
        """Return Visdom's class."""
        return self.library.Visdom

    def log_metrics(
        self, metrics: Mapping[str, object], step: int = 0, *, show_legend: bool = False
    ) -> None:
        """Log numbers by name, as other loggers do; ``show_legend`` is for new windows."""
        if show_legend:
            self._with_legend |= {"/".join(filter(None, path)) for path, _ in flatten(metrics)}
        super().log_metrics(metrics, step)

    def write_scalars(self, scalars: dict[str, float], step: int) -> None:
        """Append a point to each line."""
        for name, value in scalars.items():
            options = {
                "title": name,
                "xlabel": "step",
                "ylabel": name,
                "showlegend": name in self._with_legend,
            }
            self._run.line([value], [step], win=name, name=name, update="append", opts=options)

    def write_params(self, params: dict[str, object]) -> None:
        """Show the parameters as a table."""
        rows = [{"type": "text", "name": name, "value": str(v)} for name, v in params.items()]
        self._run.properties(rows, win="parameters", opts={"title": "parameters"})

    def write_image(self, image: Tensor, name: str, step: int) -> None:
        """Show the image in place of the last of that name."""
        array = pixels(image)
        picture = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        self._run.image(picture, win=name, opts={"title": name, "caption": f"step {step}"})

    def write_figure(self, figure: Figure, name: str, step: int) -> None:
        """Show the figure in place of the last of that name."""
        self._run.matplot(figure, win=name, opts={"title": f"{name}, step {step}"})

    def write_histogram(self, values: Tensor, name: str, step: int) -> None:
        """Show the distribution in place of the last of that name."""
        flat = values.detach().float().cpu().flatten()
        self._run.histogram(flat, win=name, opts={"title": f"{name}, step {step}"})

    def _create_output_handler(self, *args: Any, **kwargs: Any) -> OutputHandler:
        return OutputHandler(*args, **kwargs)

    def _create_opt_params_handler(self, *args: Any, **kwargs: Any) -> OptimizerParamsHandler:
        return OptimizerParamsHandler(*args, **kwargs)


class _WithLegend:
    """Lets windows have a legend."""

    show_legend: bool

    def log(self, logger: BaseLogger, values: Mapping[str, object], step: int) -> None:
        """Log numbers, drawn as wanted."""
        if isinstance(logger, VisdomLogger):
            logger.log_metrics(values, step, show_legend=self.show_legend)
        else:
            logger.log_metrics(values, step)


class OutputHandler(_WithLegend, base_logger.OutputHandler):
    """The shared handler, with ``show_legend``.

    Example:
        >>> handler = OutputHandler("validation", metric_names=["accuracy"], show_legend=True)
    """

    def __init__(
        self,
        tag: str,
        metric_names: str | list[str] | None = None,
        output_transform: OutputTransform | None = None,
        global_step_transform: StepTransform | None = None,
        show_legend: bool = False,
        state_attributes: list[str] | None = None,
    ) -> None:
        super().__init__(
            tag, metric_names, output_transform, global_step_transform, state_attributes
        )
        self.show_legend = show_legend


class OptimizerParamsHandler(_WithLegend, base_logger.OptimizerParamsHandler):
    """The shared handler, with ``show_legend``.

    Example:
        >>> handler = OptimizerParamsHandler(optimizer, "momentum", show_legend=True)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        param_name: str = "lr",
        tag: str | None = None,
        show_legend: bool = False,
    ) -> None:
        super().__init__(optimizer, param_name, tag)
        self.show_legend = show_legend


class WeightsScalarHandler(_WithLegend, base_logger.WeightsScalarHandler):
    """The shared handler, with ``show_legend``.

    Example:
        >>> handler = WeightsScalarHandler(model, whitelist=["weight"])
    """

    def __init__(
        self,
        model: nn.Module,
        reduction: Reduction = torch.norm,
        tag: str | None = None,
        show_legend: bool = False,
        whitelist: Whitelist | None = None,
    ) -> None:
        super().__init__(model, reduction, tag, whitelist)
        self.show_legend = show_legend


class GradsScalarHandler(WeightsScalarHandler):
    """The shared handler of gradients, with ``show_legend``.

    Example:
        >>> handler = GradsScalarHandler(model, show_legend=True)
    """

    of_gradients = True
