"""A logger that keeps what it is given."""

from cookfire.handlers.base_logger import (
    BaseLogger,
)


class Recorder(BaseLogger):
    """Keeps what it is given."""

    def __init__(self):
        self.scalars, self.histograms, self.params = [], [], {}

    def write_scalars(self, scalars, step):
        """Keep them with their step."""
        self.scalars.append((step, scalars))

    def write_histogram(self, values, name, step):
        """Keep the values themselves."""
        self.histograms.append((step, name, values))

    def write_params(self, params):
        """Keep them, the later over the earlier."""
        self.params |= params
