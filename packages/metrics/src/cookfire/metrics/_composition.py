"""Composing metrics: arithmetic, indexing, and the tensor methods that make sense on a value."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cookfire.metrics._metrics_lambda import MetricsLambda


class TensorMethod:
    """A method of tensors that composes: ``metric.mean()`` is the mean of the metric's value."""

    name: str

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, metric: None, owner: type) -> Self: ...
    @overload
    def __get__(self, metric: Composable, owner: type) -> Callable[..., MetricsLambda]: ...
    def __get__(
        self, metric: Composable | None, owner: type
    ) -> Self | Callable[..., MetricsLambda]:
        if metric is None:
            return self

        def compose(*args: Any, **kwargs: Any) -> MetricsLambda:
            return metric._compose(_CallMethod(self.name), metric, *args, **kwargs)

        return compose


class _CallMethod:
    """Calls a tensor's method by name; a function without a closure can be pickled."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, value: Tensor | float, *args: Any, **kwargs: Any) -> Any:
        tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        return getattr(tensor, self.name)(*args, **kwargs)


class Composable:
    """What composes metrics; each operation gives a :class:`~cookfire.metrics.MetricsLambda`.

    Attribute names other than these raise AttributeError, so that a typing mistake is one at once.

    Example:
        >>> precision, recall = Precision(average=False), Recall(average=False)
        >>> f1 = (precision * recall * 2 / (precision + recall)).mean()
        >>> first_class = precision[0]
    """

    def _compose(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> MetricsLambda:
        from cookfire.metrics._metrics_lambda import MetricsLambda

        return MetricsLambda(function, *args, **kwargs)

    def __add__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.add, self, other)

    def __radd__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.add, other, self)

    def __sub__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.sub, self, other)

    def __rsub__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.sub, other, self)

    def __mul__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.mul, self, other)

    def __rmul__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.mul, other, self)

    def __truediv__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.truediv, other, self)

    def __floordiv__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.floordiv, self, other)

    def __rfloordiv__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.floordiv, other, self)

    def __mod__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.mod, self, other)

    def __rmod__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.mod, other, self)

    def __pow__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.pow, self, other)

    def __rpow__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.pow, other, self)

    def __matmul__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.matmul, self, other)

    def __rmatmul__(self, other: Any) -> MetricsLambda:
        return self._compose(operator.matmul, other, self)

    def __neg__(self) -> MetricsLambda:
        return self._compose(operator.neg, self)

    def __abs__(self) -> MetricsLambda:
        return self._compose(operator.abs, self)

    def __getitem__(self, index: Any) -> MetricsLambda:
        return self._compose(operator.getitem, self, index)

    # With __getitem__ alone Python would take a metric for an endless sequence.
    __iter__ = None

    abs = TensorMethod()
    all = TensorMethod()
    amax = TensorMethod()
    amin = TensorMethod()
    any = TensorMethod()
    argmax = TensorMethod()
    argmin = TensorMethod()
    ceil = TensorMethod()
    clamp = TensorMethod()
    cpu = TensorMethod()
    cumsum = TensorMethod()
    diag = TensorMethod()
    diagonal = TensorMethod()
    double = TensorMethod()
    exp = TensorMethod()
    flatten = TensorMethod()
    float = TensorMethod()
    floor = TensorMethod()
    int = TensorMethod()
    item = TensorMethod()
    log = TensorMethod()
    log10 = TensorMethod()
    log2 = TensorMethod()
    long = TensorMethod()
    max = TensorMethod()
    mean = TensorMethod()
    median = TensorMethod()
    min = TensorMethod()
    nan_to_num = TensorMethod()
    nanmean = TensorMethod()
    nansum = TensorMethod()
    neg = TensorMethod()
    norm = TensorMethod()
    numpy = TensorMethod()
    pow = TensorMethod()
    prod = TensorMethod()
    quantile = TensorMethod()
    reciprocal = TensorMethod()
    reshape = TensorMethod()
    round = TensorMethod()
    sqrt = TensorMethod()
    square = TensorMethod()
    squeeze = TensorMethod()
    std = TensorMethod()
    sum = TensorMethod()
    t = TensorMethod()
    to = TensorMethod()
    tolist = TensorMethod()
    topk = TensorMethod()
    trace = TensorMethod()
    transpose = TensorMethod()
    unsqueeze = TensorMethod()
    var = TensorMethod()
    view = TensorMethod()
