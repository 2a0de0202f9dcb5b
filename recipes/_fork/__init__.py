"""``python -m recipes fork``: a recipe as a project of its own.

What a fork holds is the recipe under a new name, the stages of its data, the four packages as
wheels, and four files made from the templates beside this module.
"""

from recipes._fork._project import fork

__all__ = ["fork"]
