"""Schedules of an optimizer's parameters and of the batch size.

The formulas are pure functions of the step, in :mod:`cookfire.handlers.schedules`; the classes here
write their values to optimizers. :mod:`cookfire.handlers.state_param_scheduler` has those for
anything else. ``docs/schedules.md`` draws them all.
"""

from cookfire.handlers._base_scheduler import BaseParamScheduler
from cookfire.handlers._batch_size_scheduler import BatchSizeScheduler
from cookfire.handlers._combined_schedulers import (
    ConcatScheduler,
    ParamGroupScheduler,
    create_lr_scheduler_with_warmup,
)
from cookfire.handlers._optimizer_schedulers import (
    CosineAnnealingScheduler,
    CyclicalScheduler,
    LambdaScheduler,
    LinearCyclicalScheduler,
    ParamScheduler,
    PiecewiseLinear,
)
from cookfire.handlers._torch_schedulers import LRScheduler, ReduceLROnPlateauScheduler

__all__ = [
    "BaseParamScheduler",
    "BatchSizeScheduler",
    "ConcatScheduler",
    "CosineAnnealingScheduler",
    "CyclicalScheduler",
    "LRScheduler",
    "LambdaScheduler",
    "LinearCyclicalScheduler",
    "ParamGroupScheduler",
    "ParamScheduler",
    "PiecewiseLinear",
    "ReduceLROnPlateauScheduler",
    "create_lr_scheduler_with_warmup",
]
