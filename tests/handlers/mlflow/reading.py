"""Reading what MLflow was given."""

import time
from urllib.request import urlopen


def runs(client, experiment="Default", view=1):
    """Return the runs of an experiment."""
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], run_view_type=view)


def wait_for(port, server):
    """Wait until a server of MLflow answers."""
    end = time.monotonic() + 90
    while time.monotonic() < end and server.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


def points(client, run_id):
    """Return what a run holds: for each metric its (step, value), by step."""
    names = client.get_run(run_id).data.metrics
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))
        for name in names
    }
