"""What of an engine's output reaches a metric, and where its value goes."""

import pytest
import torch
from torch import nn

from cookfire.metrics import Accuracy, ConfusionMatrix, Loss, Metric, MetricGroup, MetricState, mIoU
from tests.metrics.engines import Total, accuracy_of, batches, echo


def test_mappings_and_dicts_are_taken_apart():
    class Both(Total):
        def compute(self):
            return {"double": self.total * 2, "vector": self.total.reshape(1)}

    for mode, names in (
        ("both", {"both", "double", "vector"}),
        ("named", {"both"}),
        ("flatten", {"double", "vector"}),
    ):
        engine = echo()
        Both(metrics_result_mode=mode).attach(engine, "both")
        assert set(engine.run([1.0, 2.0]).metrics) == names
    assert engine.state.metrics["double"] == 6.0
    Both().attach(engine, "double")
    with pytest.raises(ValueError, match="has a key 'double', which is also the name"):
        engine.run([1.0])
    engine = echo()
    Both(metrics_result_mode="flatten").attach(engine, "double")
    assert engine.run([1.0]).metrics["double"] == 2.0


def test_an_output_that_is_a_mapping_gives_what_is_required():
    scores, y = batches(1)[0]
    engine = echo()
    accuracy = Accuracy()
    accuracy.attach(engine, "accuracy")
    loss = Loss(nn.functional.cross_entropy)
    loss.attach(engine, "loss")
    engine.run([{"y": y, "y_pred": scores, "x": None}])
    assert engine.state.metrics["accuracy"] == accuracy_of([(scores, y)])
    expected = nn.functional.cross_entropy(scores, y).item()
    assert engine.state.metrics["loss"] == pytest.approx(expected)
    engine.run([{"y": y, "y_pred": scores, "criterion_kwargs": {"label_smoothing": 0.5}}])
    assert engine.state.metrics["loss"] != pytest.approx(expected)
    with pytest.raises(ValueError, match="Accuracy needs 'y_pred', 'y' of an output .* has 'y'"):
        engine.run([{"y": y}])
    engine = echo()
    Total().attach(engine, "total")
    with pytest.raises(TypeError, match="Total takes no mapping, but the output has the keys"):
        engine.run([{"y": y}])


def test_three_items_go_to_a_metric_that_requires_them():
    class Weighted(Metric):
        required_output_keys = ("y_pred", "y", "x")
        total = MetricState(torch.float64)

        def update(self, output):
            y_pred, y, x = output
            self.accumulate(total=y_pred * y * x)

        def compute(self):
            return self.total

    engine = echo()
    Weighted().attach(engine, "weighted")
    assert engine.run([{"x": 2.0, "y": 3.0, "y_pred": 5.0}]).metrics["weighted"] == 30.0


def test_lists_of_tensors_are_unrolled_unless_told_otherwise():
    scores, y = batches(1)[0]
    engine = echo()
    Accuracy().attach(engine, "accuracy")
    engine.run([(list(scores), list(y)), (list(scores), y.tolist())])
    assert engine.state.metrics["accuracy"] == accuracy_of([(scores, y)])
    with pytest.raises(
        ValueError, match="takes two lists of one length, got 2 of the lengths 30, 29"
    ):
        engine.run([(list(scores), list(y)[:29])])

    def two_losses(y_pred, y):
        return nn.functional.mse_loss(y_pred[0], y[0]) + nn.functional.mse_loss(y_pred[1], y[1])

    engine = echo()
    Loss(two_losses, skip_unrolling=True, batch_size=lambda y: len(y[0])).attach(engine, "loss")
    pair = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.full((3,), 2.0)]
    assert engine.run([pair]).metrics["loss"] == 5.0


def test_a_group_with_a_transform_before_its_metrics():
    engine, data = echo(), batches()
    group = MetricGroup({"accuracy": Accuracy(), "miou": mIoU(ConfusionMatrix(3))})
    group.attach(engine, "all")
    nested = MetricGroup(
        {"nested accuracy": Accuracy(output_transform=lambda output: output["pair"])},
        output_transform=lambda output: {"pair": output},
    )
    nested.attach(engine, "nested")
    second = echo()
    for name, metric in (("all", group), ("nested", nested)):
        metric.attach(second, name)
    engine.run(data)
    second.run(data[:2])
    assert engine.state.metrics["accuracy"] == accuracy_of(data)
    assert engine.state.metrics["nested accuracy"] == accuracy_of(data)
    assert set(engine.state.metrics["all"]) == {"accuracy", "miou"}
    assert second.state.metrics["accuracy"] == accuracy_of(data[:2])
    assert second.state.metrics["nested accuracy"] == accuracy_of(data[:2])
    assert group.is_attached(engine)
    group.detach(engine)
    assert not group.is_attached(engine)
