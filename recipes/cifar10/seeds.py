"""Write the mean and the standard deviation of `full`'s test metrics over the seeds 0 to 4.

python -m recipes.cifar10.seeds
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

from cookfire.handlers.recipe import RecipeError

PROFILES = ("full", "full_seed1", "full_seed2", "full_seed3", "full_seed4")


def summarize(runs: Path) -> dict[str, dict[str, float]]:
    """Return of each metric the mean, the sample standard deviation, and the extremes.

    Raises:
        RecipeError: a seed was not evaluated.
    """
    results = []
    for profile in PROFILES:
        path = runs / profile / "metrics.json"
        if not path.is_file():
            raise RecipeError(
                f"{path}: no such file; `dvc repro` this stage trains what is missing"
            )
        results.append(json.loads(path.read_text()))
    columns = {name: [result[name] for result in results] for name in results[0]}
    return {
        name: {"mean": mean(of), "std": stdev(of), "min": min(of), "max": max(of)}
        for name, of in columns.items()
    }


if __name__ == "__main__":
    folder = Path(__file__).parent / "runs"
    text = json.dumps(summarize(folder), indent=2, sort_keys=True) + "\n"
    (folder / "seeds.json").write_text(text)
    print(text, end="")
