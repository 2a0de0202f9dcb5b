"""Say whether a committed ``dvc.lock`` is stale: whether a stage would run, without running any.

    uv run tools/stale.py recipes/mnist/dvc.yaml

Data that is not there counts as unchanged, so this needs neither data nor a GPU.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> int:
    """Ask DVC; return 0 where no stage would run, 1 where one would."""
    if len(sys.argv) < 2:
        print("usage: stale.py DVC_YAML ...", file=sys.stderr)
        return 2
    done = subprocess.run(
        ["dvc", "repro", "--dry", "--allow-missing", *sys.argv[1:]],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    # Both count: DVC exits 0 with stages to run, and not 0 where it lacks what one would read.
    if done.returncode or "Running stage" in done.stdout:
        print(done.stdout, file=sys.stderr)
        print(f"stale: {' '.join(sys.argv[1:])}; run it and commit dvc.lock", file=sys.stderr)
        return 1
    print(f"not stale: {' '.join(sys.argv[1:])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
