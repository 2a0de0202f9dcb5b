"""One script on one process, many, or many machines.

Usually imported as ``idist``. Everything works without a process group too: questions answer for
one process, collectives give their argument back.
"""

from . import utils
from . import xla as xla
from ._backends import Backend, register_backend
from ._environment import Place
from ._order import DataOrder, derive_seed, set_position
from ._uneven import refuse_uneven
from .auto import DistributedProxySampler, auto_dataloader, auto_model, auto_optim, no_sync
from .launcher import Parallel
from .utils import *  # noqa: F403 - its __all__ is this package's as well

__all__ = [
    "Backend",
    "DataOrder",
    "DistributedProxySampler",
    "Parallel",
    "Place",
    "auto_dataloader",
    "auto_model",
    "auto_optim",
    "derive_seed",
    "no_sync",
    "refuse_uneven",
    "register_backend",
    "set_position",
    *utils.__all__,
]
