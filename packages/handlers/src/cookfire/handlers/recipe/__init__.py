"""What every recipe needs: strict parameters, a run's folders, going on after a kill, verify.

A recipe's ``train.py`` ends with ``recipe.main(train, Config, __file__)`` and its ``evaluate.py``
with ``recipe.main(evaluate, Config, __file__, resumable=False)``. See :func:`main`, :class:`Run`,
:func:`verify` and :func:`repeat`.
"""

from cookfire.handlers._reading import DamagedCheckpoint
from cookfire.handlers.recipe._command import verify
from cookfire.handlers.recipe._errors import RecipeError
from cookfire.handlers.recipe._main import main
from cookfire.handlers.recipe._options import add_commands
from cookfire.handlers.recipe._parameters import Config, load, profiles
from cookfire.handlers.recipe._precision import mixed_precision
from cookfire.handlers.recipe._repeat import repeat
from cookfire.handlers.recipe._run import Run
from cookfire.handlers.recipe._spread import Spread, spreads
from cookfire.handlers.recipe._verify import Report, check

__all__ = [
    "Config",
    "DamagedCheckpoint",
    "RecipeError",
    "Report",
    "Run",
    "Spread",
    "add_commands",
    "check",
    "load",
    "main",
    "mixed_precision",
    "profiles",
    "repeat",
    "spreads",
    "verify",
]
