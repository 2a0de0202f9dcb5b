"""Metrics that keep their state in plain attributes, as written for pytorch-ignite."""

import pytest
import torch

from cookfire.engine import Engine
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import Accuracy, Metric
from cookfire.metrics.metric import reinit__is_reduced, sync_all_reduce


class CustomAccuracy(Metric):
    """The custom metric of ignite's documentation, in our words."""

    _state_dict_all_req_keys = ("_num_correct", "_num_examples")

    def __init__(self, ignored_class, output_transform=lambda x: x, device="cpu"):
        self.ignored_class = ignored_class
        self._num_correct = None
        self._num_examples = None
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self):
        self._num_correct = torch.tensor(0, device=self._device)
        self._num_examples = 0
        super().reset()

    @reinit__is_reduced
    def update(self, output):
        y_pred, y = output[0].detach(), output[1].detach()
        indices = torch.argmax(y_pred, dim=1)
        mask = (y != self.ignored_class) & (indices != self.ignored_class)
        correct = torch.eq(indices[mask], y[mask]).view(-1)
        self._num_correct += torch.sum(correct).to(self._device)
        self._num_examples += correct.shape[0]

    @sync_all_reduce("_num_examples", "_num_correct:SUM")
    def compute(self):
        if self._num_examples == 0:
            raise NotComputableError("CustomAccuracy must have at least one example")
        return self._num_correct.item() / self._num_examples


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(20, 4, generator=generator), torch.randint(0, 4, (20,), generator=generator)


def test_plain_attributes_work():
    metric, own = CustomAccuracy(9), Accuracy()
    with pytest.raises(NotComputableError):
        metric.compute()
    for seed in range(3):
        metric.update(batch(seed))
        own.update(batch(seed))
    assert metric.compute() == own.compute()
    error = 100 * (1 - metric)
    assert error.compute() == 100 * (1 - own.compute())


def test_plain_attributes_work_in_engines():
    metric, own = CustomAccuracy(9), Accuracy()
    engines = [Engine(lambda engine, batch: batch) for _ in range(2)]
    for index, engine in enumerate(engines):
        metric.attach(engine, "custom")
        own.attach(engine, "own")
        state = engine.run([batch(index), batch(5)], max_epochs=2)
        assert state.metrics["custom"] == state.metrics["own"]
    assert metric.compute() == engines[0].state.metrics["custom"]


def test_a_metric_with_plain_attributes_keeps_them_on_the_cpu_unless_told():
    assert CustomAccuracy(9)._device == torch.device("cpu")

    class Plain(Metric):
        def update(self, output):
            self.total = torch.zeros((), device=self._device)

        def compute(self):
            return self.total

    assert Plain()._device == torch.device("cpu")
    assert Accuracy()._device is None


def test_a_kept_result_is_forgotten_by_an_update():
    class Kept(Metric):
        @reinit__is_reduced
        def reset(self):
            self._result = None
            self.total = 0

        @reinit__is_reduced
        def update(self, output):
            self.total += output

        @sync_all_reduce("total")
        def compute(self):
            if self._result is None:
                self._result = self.total
            return self._result

    metric = Kept()
    metric.update(1)
    assert metric.compute() == 1
    assert metric._result == 1
    metric.update(2)
    assert metric._result is None
    assert metric.compute() == 3


def test_the_saved_attributes_are_those_that_are_named():
    metric = CustomAccuracy(9)
    metric.update(batch())
    saved = metric.state_dict()
    other = CustomAccuracy(9)
    other.load_state_dict(saved)
    assert other.compute() == metric.compute()
    other.update(batch(1))
    metric.update(batch(1))
    assert other.compute() == metric.compute()


def test_attributes_to_synchronise_are_checked():
    with pytest.raises(ValueError, match=r"'a:MEAN'\): unknown operation 'MEAN'; expected one of"):
        sync_all_reduce("a:MEAN")

    class Wrong(Metric):
        def update(self, output):
            self.text = "a"

        @sync_all_reduce("text")
        def compute(self):
            return 1

    metric = Wrong()
    with pytest.raises(ValueError, match="Wrong has no attribute 'text' to synchronise"):
        metric.compute()
    metric.update(None)
    with pytest.raises(TypeError, match=r"Wrong.text can't be synchronised: .* got 'a' \(str\)"):
        metric.compute()
