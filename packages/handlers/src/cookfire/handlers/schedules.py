"""Schedules: pure functions from a step to a value.

A :data:`Schedule` knows no optimizer, no engine and no past: the value at step ``k`` is
``schedule(k)``, in whatever order it is asked. The classes of
:mod:`cookfire.handlers.param_scheduler` write such values to an optimizer's groups, those of
:mod:`cookfire.handlers.state_param_scheduler` to an engine's state; a training loop of one's own
can call them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from numbers import Real

__all__ = [
    "Schedule",
    "Shape",
    "concatenate",
    "cosine",
    "cycles",
    "exponential",
    "linear",
    "multi_step",
    "piecewise_linear",
    "step_decay",
    "triangle",
]

Schedule = Callable[[int], float]
"""From the step, counted from 0, to the value in force at that step."""

Shape = Callable[[float], float]
"""From the part of a cycle that is done, 0 to 1, to the part of the way from start to end."""


def linear(progress: float) -> float:
    """The shape of a saw: straight to the end value.

    Example:
        >>> [linear(part) for part in (0, 0.25, 0.5, 1)]
        [0, 0.25, 0.5, 1]
    """
    return progress


def triangle(progress: float) -> float:
    """The shape of a triangle: to the end value at half of the cycle, and back.

    From L. N. Smith, Cyclical Learning Rates for Training Neural Networks (2017).

    Example:
        >>> [triangle(part) for part in (0, 0.25, 0.5, 1)]
        [0.0, 0.5, 1.0, 0.0]
    """
    return 1 - 2 * abs(progress - 0.5)


def cosine(progress: float) -> float:
    """The shape of half a cosine: it leaves the start, and meets the end, without a slope.

    From I. Loshchilov and F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts (2017).

    Example:
        >>> [round(cosine(part), 3) for part in (0, 0.25, 0.5, 1)]
        [0.0, 0.146, 0.5, 1.0]
    """
    return (1 - math.cos(math.pi * progress)) / 2


def cycles(
    start: float,
    end: float,
    size: int,
    shape: Shape = cosine,
    *,
    size_mult: float = 1.0,
    start_mult: float = 1.0,
    end_mult: float = 1.0,
    warmup: int = 0,
) -> Schedule:
    """Return a schedule that goes from ``start`` to ``end`` by ``shape``, again and again.

    Args:
        start: the value at the beginning of the first cycle.
        end: the value where ``shape`` is 1.
        size: steps of the first cycle.
        shape: :func:`linear`, :func:`triangle`, :func:`cosine`, or a function of one's own.
        size_mult: each cycle is so many times as long as the one before, rounded down, but has at
            least 2 steps.
        start_mult: factor from each cycle's start value to the next one's.
        end_mult: the same for end values.
        warmup: steps on a straight line from the end of a cycle to the start of the next; they
            grow with the cycles.

    Raises:
        ValueError: ``size`` is below 2, ``warmup`` is negative, or ``size_mult`` is not positive.

    Example:
        >>> schedule = cycles(1.0, 0.0, 4, linear, start_mult=0.5)
        >>> [schedule(step) for step in range(8)]
        [1.0, 0.75, 0.5, 0.25, 0.5, 0.375, 0.25, 0.125]
    """
    if not isinstance(size, int) or size < 2:
        raise ValueError(f"a cycle must have at least 2 steps, got {size!r}")
    if not isinstance(warmup, int) or warmup < 0:
        raise ValueError(f"the warm-up must have 0 steps or more, got {warmup!r}")
    _check_values(
        start=start, end=end, size_mult=size_mult, start_mult=start_mult, end_mult=end_mult
    )
    if not size_mult > 0:
        raise ValueError(f"the factor of the cycles' sizes must be above 0, got {size_mult!r}")
    return _Cycles(start, end, size, shape, size_mult, start_mult, end_mult, warmup)


@dataclass(frozen=True)
class _Cycles:
    start: float
    end: float
    size: int
    shape: Shape
    size_mult: float
    start_mult: float
    end_mult: float
    warmup: int

    def __call__(self, step: int) -> float:
        number, index, size, warmup = self._find(step)
        end = self.end * self.end_mult**number
        if index > size:
            next_start = self.start * self.start_mult ** (number + 1)
            return end + (next_start - end) * (index - size) / warmup
        start = self.start * self.start_mult**number
        return start + (end - start) * self.shape(index / size)

    def _find(self, step: int) -> tuple[int, int, int, int]:
        """Return the number of the step's cycle, the index in it, its size and its warm-up."""
        number, size, warmup = 0, self.size, self.warmup
        while step >= size + warmup:
            following = max(int(size * self.size_mult), 2), int(warmup * self.size_mult)
            if following == (size, warmup):  # from here on all are equal
                more, step = divmod(step, size + warmup)
                return number + more, step, size, warmup
            step -= size + warmup
            number += 1
            size, warmup = following
        return number, step, size, warmup


def piecewise_linear(milestones: Sequence[tuple[int, float]]) -> Schedule:
    """Return a schedule that joins points by straight lines; outside of them it is constant.

    Args:
        milestones: ``(step, value)``, in the order of the steps. Of two at the same step the later
            one counts: a jump.

    Raises:
        ValueError: there are none, a step is no whole number of at least 0, or they go back.

    Example:
        >>> schedule = piecewise_linear([(0, 0.0), (2, 1.0), (4, 0.5)])
        >>> [schedule(step) for step in range(6)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    """
    if not milestones:
        raise ValueError("milestones: expected at least one (step, value)")
    for point in milestones:
        if not isinstance(point, Sequence) or len(point) != 2:
            raise TypeError(f"milestones: expected pairs (step, value), got {point!r}")
    steps = [step for step, _ in milestones]
    values = [value for _, value in milestones]
    _check_steps("milestones", steps)
    for step, value in milestones:
        _check_values(**{f"milestones: the value at {step}": value})

    def value_at(step: int) -> float:
        after = bisect_right(steps, step)
        if after == 0:
            return values[0]
        if after == len(steps):
            return values[-1]
        begin, end = steps[after - 1], steps[after]
        part = (step - begin) / (end - begin)
        return values[after - 1] + (values[after] - values[after - 1]) * part

    return value_at


def concatenate(schedules: Sequence[Schedule], durations: Sequence[int]) -> Schedule:
    """Return a schedule that follows each schedule in turn, from its own step 0.

    Args:
        schedules: the schedules.
        durations: steps of each of them; the last one has no end.

    Raises:
        ValueError: there is not one duration less than schedules, or one is below 1.

    Example:
        >>> schedule = concatenate([lambda step: step / 2, lambda step: 1 - step], [2])
        >>> [schedule(step) for step in range(4)]
        [0.0, 0.5, 1, 0]
    """
    find = sections(len(schedules), durations)

    def value_at(step: int) -> float:
        number, own_step = find(step)
        return schedules[number](own_step)

    return value_at


def sections(count: int, durations: Sequence[int]) -> Callable[[int], tuple[int, int]]:
    """Return a function from a step to (which of ``count`` sections, the step within it)."""
    if len(durations) != count - 1:
        raise ValueError(
            f"durations: expected one less than there are schedules ({count}), since the last has "
            f"no end; got {len(durations)}"
        )
    if any(not isinstance(duration, int) or duration < 1 for duration in durations):
        raise ValueError(f"durations: expected whole numbers of at least 1, got {list(durations)}")
    begins = [0, *accumulate(durations)]

    def find(step: int) -> tuple[int, int]:
        number = bisect_right(begins, step) - 1
        return number, step - begins[number]

    return find


def exponential(initial: float, gamma: float) -> Schedule:
    """Return ``initial * gamma**step``.

    Example:
        >>> [exponential(1.0, 0.5)(step) for step in range(3)]
        [1.0, 0.5, 0.25]
    """
    _check_values(initial=initial, gamma=gamma)
    return lambda step: initial * gamma**step


def step_decay(initial: float, gamma: float, size: int) -> Schedule:
    """Return a schedule that is multiplied by ``gamma`` after each ``size`` steps.

    Raises:
        ValueError: ``size`` is below 1.

    Example:
        >>> [step_decay(1.0, 0.5, 2)(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"the step size must be at least 1, got {size!r}")
    _check_values(initial=initial, gamma=gamma)
    return lambda step: initial * gamma ** (step // size)


def multi_step(initial: float, gamma: float, milestones: Sequence[int]) -> Schedule:
    """Return a schedule that is multiplied by ``gamma`` at each of the milestones.

    Raises:
        ValueError: a milestone is no whole number of at least 0, or they go back.

    Example:
        >>> [multi_step(1.0, 0.5, [1, 3])(step) for step in range(5)]
        [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    _check_steps("milestones", milestones)
    _check_values(initial=initial, gamma=gamma)
    return lambda step: initial * gamma ** bisect_right(milestones, step)


def _check_steps(name: str, steps: Sequence[int]) -> None:
    for step in steps:
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise ValueError(f"{name}: expected steps of 0 or more, got {step!r}")
    for first, second in pairwise(steps):
        if second < first:
            raise ValueError(f"{name}: expected ascending steps, got {second} after {first}")


def _check_values(**values: object) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
