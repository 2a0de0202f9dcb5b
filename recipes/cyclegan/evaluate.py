"""Measure a profile's trained generators on the test pictures.

    python -m recipes.cyclegan.evaluate --profile tiny
    python -m recipes.cyclegan.evaluate --profile full --data DIR --out DIR

The headline is that of ``model.pt``, the weights after the last step, in whose choice no test
picture had a say. What each metric is, and by what sets of pictures are compared, is said in
``metrics.py`` and ``features.py``.
"""

from __future__ import annotations

from functools import partial

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config
from .data import create_test_loader, load_test
from .metrics import create_evaluator, results
from .model import Generators
from .pictures import make_grids, write_png


def evaluate(config: Config, run: recipe.Run) -> dict[str, float]:
    """Write ``metrics.json`` and the grids of test pictures; return the headline."""
    pictures = load_test(config, run.data)
    generators = Generators(config)
    saved = run.load("model.pt")
    if not isinstance(saved, dict) or not isinstance(saved.get("generators"), dict):
        raise recipe.RecipeError(f"{run.outputs / 'model.pt'}: holds no generators; train again")
    generators.load_state_dict(saved["generators"])
    generators.to(idist.device())
    evaluator = create_evaluator(config, generators)
    evaluator.run(create_test_loader(config, pictures))
    metrics = results(evaluator)
    run.write_metrics(metrics)
    for name, grid in make_grids(generators, pictures.first()).items():
        run.write(f"{name}.png", partial(write_png, grid))
    return metrics


if __name__ == "__main__":
    recipe.main(evaluate, Config, __file__, resumable=False)
