"""Metrics of texts, recommendations and detections: over ranks, on devices, of huge counts."""

import random

import pytest
import torch

import cookfire.distributed as idist
from cookfire.engine import Engine, Events
from cookfire.engine.exceptions import NotComputableError
from cookfire.metrics import (
    NDCG,
    Bleu,
    CharacterErrorRate,
    CommonObjectDetectionMetrics,
    HitRate,
    ObjectDetectionAvgPrecisionRecall,
    Perplexity,
    Rouge,
    RougeL,
    RougeN,
)
from tests.metrics.test_no_waiting import NoWaiting


def texts(seed):
    draw = random.Random(seed)

    def text():
        return draw.choices("abcd", k=draw.randint(1, 9))

    number = draw.randint(0, 3)
    return [text() for _ in range(number)], [[text(), text()] for _ in range(number)]


def strings(seed):
    candidates, references = texts(seed)
    return list(map("".join, candidates)), ["".join(both[0]) for both in references]


def tokens(seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 7, (2, 5), generator=generator)
    return 3 * torch.randn(2, 7, 5, generator=generator), y.masked_fill(y == 6, -100)


def ranking(seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (3, 8), generator=generator)
    return torch.rand(3, 8, generator=generator), y * (torch.rand(3, 8, generator=generator) < 0.3)


def boxes(seed):
    generator = torch.Generator().manual_seed(seed)
    y_pred, y = [], []
    for number in torch.randint(0, 6, (seed % 3,), generator=generator).tolist():
        corners = torch.rand(number, 4, generator=generator) * 90
        corners[:, 2:] += corners[:, :2]
        labels = torch.randint(0, 3, (number,), generator=generator)
        crowd = torch.rand(number, generator=generator) < 0.2
        y.append({"bbox": corners, "labels": labels, "iscrowd": crowd})
        moved = corners + torch.rand(number, 4, generator=generator) * 9
        scores = torch.rand(number, generator=generator)
        y_pred.append({"bbox": moved, "labels": labels, "scores": scores})
    return y_pred, y


def make_metrics():
    return {
        "bleu": (Bleu(2, "smooth1"), texts),
        "corpus bleu": (Bleu(2, "smooth2", average="micro"), texts),
        "rouge": (Rouge(alpha=0.5), texts),
        "rouge n": (RougeN(1, "best"), texts),
        "rouge l": (RougeL(), texts),
        "characters": (CharacterErrorRate(), strings),
        "perplexity": (Perplexity(), tokens),
        "hit rate": (HitRate([1, 3, 5]), ranking),
        "ndcg": (NDCG([2, 4], ignore_zero_hits=False), ranking),
        "average precision": (ObjectDetectionAvgPrecisionRecall(num_classes=3), boxes),
        "coco": (CommonObjectDetectionMetrics(3), boxes),
    }


SPLITS = {2: [(0, 1, 0, 1, 1, 1), (1,) * 6], 3: [(0, 1, 2, 0, 1, 0), (2, 2, 2, 0, 0, 0)]}


def feed(rank, split):
    metrics = make_metrics()
    for metric, draw in metrics.values():
        for seed, owner in enumerate(split):
            if owner == rank:
                metric.update(draw(seed))
    return {name: metric for name, (metric, _) in metrics.items()}


def in_an_engine(rank, split):
    """All of them attached to one engine, whose batches are the seeds of these."""
    engine = Engine(lambda engine, seed: seed)
    for name, (metric, draw) in make_metrics().items():
        metric._output_transform = draw
        metric._skip_unrolling = True
        metric.attach(engine, name)
    mine = [seed for seed, owner in enumerate(split) if owner == rank]
    if mine:
        engine.run(mine)
    else:
        engine.fire_event(Events.EPOCH_STARTED)
        engine.fire_event(Events.EPOCH_COMPLETED)
    return {name: engine.state.metrics[name] for name in make_metrics()}


def on_a_rank(splits):
    rank = idist.get_rank()
    for metric, _ in make_metrics().values():
        with pytest.raises(NotComputableError):
            metric.compute()
    values, states = [], []
    for split in splits:
        metrics = feed(rank, split)
        values.append({name: metric.compute() for name, metric in metrics.items()})
        values.append(in_an_engine(rank, split))
        states.append({name: metric.state_dict() for name, metric in metrics.items()})
    return values, states


def load_on_a_rank(states):
    values = {}
    for name, (metric, draw) in make_metrics().items():
        metric.load_state_dict(states[name])
        if idist.get_rank() == 1:
            metric.update(draw(7))
        values[name] = metric.compute()
    return values


def close(value, expected):
    if isinstance(expected, dict):
        assert value.keys() == expected.keys()
        value, expected = list(value.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(value) == len(expected)
        for left, right in zip(value, expected, strict=True):
            close(left, right)
        return
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-9)


def one_process(seeds):
    values = {}
    for name, (metric, draw) in make_metrics().items():
        for seed in seeds:
            metric.update(draw(seed))
        values[name] = metric.compute()
    return values


@pytest.mark.parametrize("world_size", [2, 3])
def test_values_over_ranks_are_those_of_one_process(processes, world_size):
    expected = one_process(range(6))
    results = processes(world_size, on_a_rank, SPLITS[world_size])
    for values, _ in results:
        for value in values:
            for name in expected:
                close(value[name], expected[name])
    # Saved by 3, loaded by 2, and by one.
    if world_size == 3:
        states = results[1][1][0]
        more = one_process([*range(6), 7])
        for value in processes(2, load_on_a_rank, states):
            for name in more:
                close(value[name], more[name])
        for name, (metric, _) in make_metrics().items():
            metric.load_state_dict(states[name])
            close(metric.compute(), expected[name])


ON_DEVICES = ["perplexity", "hit rate", "ndcg", "average precision", "coco"]


@pytest.mark.parametrize("name", ON_DEVICES)
def test_updates_do_not_wait(name):
    metric, draw = make_metrics()[name]
    batches = [draw(seed) for seed in (2, 5)]
    metric.update(batches[0])
    with NoWaiting():
        for batch in batches:
            metric.update(batch)
    assert metric.compute()


def to_meta(batch):
    if isinstance(batch, torch.Tensor):
        return batch.to("meta")
    if isinstance(batch, dict):
        return {key: to_meta(value) for key, value in batch.items()}
    return type(batch)(map(to_meta, batch))


@pytest.mark.parametrize("name", ON_DEVICES)
def test_state_lives_where_the_data_do(name):
    metric, draw = make_metrics()[name]
    for _ in range(2):
        metric.update(to_meta(draw(5)))
    held = metric._store.local.values.values()
    tensors = [x for value in held for x in (value if isinstance(value, list) else [value])]
    devices = {tensor.device.type for tensor in tensors if isinstance(tensor, torch.Tensor)}
    assert devices == {"meta"}


def test_counts_beyond_what_float32_holds_are_exact():
    big = 2**25
    metric = HitRate([1])
    metric.accumulate(hits=torch.tensor([big]), count=big + 1)
    assert metric.compute() == [big / (big + 1)]
    metric = CharacterErrorRate()
    metric.accumulate(errors=big + 1, characters=big * 4)
    assert metric.compute() == (big + 1) / (big * 4)
    metric = NDCG([1])
    metric.accumulate(gains=torch.tensor([big + 0.125], dtype=torch.float64), count=big)
    assert metric.compute() == [(big + 0.125) / big]
    metric = Perplexity()
    metric.accumulate(log_likelihood=torch.tensor(-(big + 0.5), dtype=torch.float64), count=big)
    assert metric.compute() == pytest.approx(2.718281828459045 ** (1 + 0.5 / big), rel=1e-15)


def test_without_float64_the_sums_are_compensated(monkeypatch):
    exact = one_process(range(6))
    for module in ("_state", "nlp._perplexity", "rec_sys._ndcg", "vision._boxes"):
        monkeypatch.setattr(f"cookfire.metrics.{module}.WITHOUT_FLOAT64", ("cpu",))
    for name, value in one_process(range(6)).items():
        if name in ON_DEVICES:
            flat = value.values() if isinstance(value, dict) else value
            other = exact[name].values() if isinstance(value, dict) else exact[name]
            assert torch.allclose(
                torch.as_tensor(list(flat) if name != "perplexity" else flat),
                torch.as_tensor(list(other) if name != "perplexity" else other),
                rtol=1e-5,
            )
