"""Trackers' packages, each replaced by a double."""

import pytest

from tests.handlers.trackers import LOGGERS, put


@pytest.fixture
def wandb(monkeypatch):
    return put("wandb", monkeypatch)


@pytest.fixture
def clearml(monkeypatch):
    return put("clearml", monkeypatch)


@pytest.fixture
def neptune(monkeypatch):
    return put("neptune", monkeypatch)


@pytest.fixture
def polyaxon(monkeypatch):
    return put("polyaxon.tracking", monkeypatch)


@pytest.fixture
def visdom(monkeypatch):
    return put("visdom", monkeypatch)


@pytest.fixture(params=LOGGERS)
def tracker(request, monkeypatch):
    return put(request.param, monkeypatch)
