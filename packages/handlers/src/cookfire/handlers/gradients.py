"""Clipping gradients, and watching how large they are.

Both hook into the optimizer: what they do happens in ``optimizer.step()``, when all gradients are
there. So they work with ready-made trainers and with a step of one's own, are called once a window
where gradients are accumulated, see gradients after DistributedDataParallel has averaged them and
after a ``GradScaler`` has taken its scale out, and are not called for a step that the scaler skips.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from cookfire.engine import Engine
from cookfire.handlers._checks import check_above_zero

__all__ = ["GradientClipping", "GradientNorm"]


class GradientNorm:
    """Measures the norm of all gradients together, at each step of an optimizer.

    It stays a tensor on the device: nothing waits for it until somebody reads it.

    Args:
        optimizer: whose parameters.
        norm_type: the order of the norm; 2 by default, ``inf`` for the largest element.

    Attributes:
        norm: the norm at the last step, a 0-d tensor; None before the first.

    Example:
        >>> handle = GradientNorm(optimizer).attach(trainer)
        >>> ProgressBar().attach(trainer, ["gradient_norm"])
    """

    def __init__(self, optimizer: Optimizer, norm_type: float = 2.0) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be one of torch's, got {type(optimizer).__name__}")
        check_above_zero("norm_type", norm_type)
        self.optimizer = optimizer
        self.norm_type = norm_type
        self.norm: Tensor | None = None
        self._engine: Engine | None = None
        self._name = "gradient_norm"

    def attach(self, engine: Engine, name: str = "gradient_norm") -> RemovableHandle:
        """Measure from now on, and put the norm into ``engine.state.metrics``.

        Args:
            engine: the trainer.
            name: the metric's name.

        Returns:
            A handle whose ``remove()`` ends it.
        """
        self._engine, self._name = engine, name
        return self.optimizer.register_step_pre_hook(self._before_step)

    @torch.no_grad()
    def _before_step(self, *_: Any) -> None:
        gradients = [parameter.grad for parameter in self._parameters()]
        norm = get_total_norm([one for one in gradients if one is not None], self.norm_type)
        # A fused optimizer takes the scale out in its own kernel, so it is still in here.
        scale = getattr(self.optimizer, "grad_scale", None)
        self.norm = norm if scale is None else norm / scale.to(norm.device)
        if self._engine is not None:
            self._engine.state.metrics[self._name] = self.norm
        self._clip(self.norm, scale)

    def _clip(self, norm: Tensor, scale: Tensor | None) -> None:
        """Change the gradients: nothing here."""

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    yield parameter


class GradientClipping(GradientNorm):
    """Keeps gradients from getting too large, and measures the norm that they had.

    Args:
        optimizer: whose parameters.
        max_norm: gradients whose norm, all together, is larger are scaled down to it: R. Pascanu et
            al., On the difficulty of training recurrent neural networks (2013). May be changed
            between steps.
        max_value: each element is clamped to ``[-max_value, max_value]``.
        norm_type: the order of the norm.

    Attributes:
        norm: the norm before clipping, a 0-d tensor.

    Raises:
        ValueError: neither or both of ``max_norm`` and ``max_value`` are given, or it is not
            positive.

    Example:
        >>> handle = GradientClipping(optimizer, max_norm=1.0).attach(trainer)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_norm: float | None = None,
        max_value: float | None = None,
        norm_type: float = 2.0,
    ) -> None:
        super().__init__(optimizer, norm_type)
        if (max_norm is None) == (max_value is None):
            raise ValueError(
                "expected either max_norm or max_value, "
                f"got max_norm={max_norm!r}, max_value={max_value!r}"
            )
        for name, bound in (("max_norm", max_norm), ("max_value", max_value)):
            if bound is not None:
                check_above_zero(name, bound)
        self.max_norm = max_norm
        self.max_value = max_value

    def _clip(self, norm: Tensor, scale: Tensor | None) -> None:
        if self.max_norm is not None:
            clip_grads_with_norm_(self._parameters(), self.max_norm, norm)
            return
        for parameter in self._parameters():
            if parameter.grad is not None and self.max_value is not None:
                bound: Any = self.max_value
                if scale is not None:
                    bound = scale.to(parameter.grad.device) * self.max_value
                parameter.grad.clamp_(-bound, bound)
