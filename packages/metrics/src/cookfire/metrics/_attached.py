"""The metrics of one engine and usage: updated in one handler, combined over the ranks at once."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from cookfire.engine import Engine, Events
from cookfire.metrics._reduction import Combined
from cookfire.metrics._saving import load_metrics, save_metrics
from cookfire.metrics._store import Store
from cookfire.metrics._usage import MetricUsage
from cookfire.metrics.metric import Metric


class _Entry(NamedTuple):
    name: str
    given: Metric
    """What the user attached."""
    used: Metric
    """The same, or a copy of it."""
    family: list[Metric]
    """That and what it holds."""


class AttachedMetrics:
    """The metrics attached to one engine with one usage.

    It, not each metric, listens to the engine's events; it is found again among the engine's
    handlers, so that nothing else need remember it.

    Args:
        engine: whose events it listens to.
        usage: when metrics are reset, updated and computed.
    """

    def __init__(self, engine: Engine, usage: MetricUsage) -> None:
        self.usage = usage
        self._entries: list[_Entry] = []
        self._copies: dict[Metric, Metric] = {}
        """The metrics that are updated, by those that were given for them."""
        self._leaves: list[Metric] = []
        self._updates: list[Callable[[Any], None]] = []
        self._handlers: list[Callable[[Engine], None]] = []
        self._eager: list[_Entry] = []
        self._lazy: list[_Entry] = []
        self._groups: list[_Group] = []
        """Those that are updated alike, and can share one store."""
        self._updated_at = -1
        """The engine's iteration that was taken in last."""
        self._scratch: dict[Hashable, Any] = {}
        """What metrics work out once for all in an iteration."""
        self._handles = [
            engine.add_event_handler(usage.STARTED, self.started),
            engine.add_event_handler(usage.ITERATION_COMPLETED, self.iteration_completed),
            engine.add_event_handler(usage.COMPLETED, self.completed),
        ]
        if usage.COMPLETED is not Events.EPOCH_COMPLETED:
            self._handles.append(
                engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
            )

    def __contains__(self, metric: Metric) -> bool:
        return any(entry.given is metric for entry in self._entries)

    def add(self, metric: Metric, name: str) -> None:
        """Have a metric computed under a name.

        Raises:
            ValueError: another metric has that name.
        """
        if any(entry.name == name and entry.given is not metric for entry in self._entries):
            raise ValueError(
                f"a metric is attached as {name!r} already: detach that one, or attach this "
                f"{type(metric).__name__} under another name"
            )
        used = self._adopt(metric)
        self._entries.append(_Entry(name, metric, used, list(used._family())))
        self._arrange()

    def remove(self, metric: Metric) -> None:
        """Forget a metric; if it is but a part of others, forget those."""
        gone = [entry for entry in self._entries if entry.given is metric]
        gone = gone or [entry for entry in self._entries if metric in entry.given._family()]
        self._entries = [entry for entry in self._entries if entry not in gone]
        self._arrange()
        if not self._entries:
            for handle in self._handles:
                handle.remove()

    def used_for(self, metric: Metric) -> Metric:
        """Return the object whose state serves a metric that was added: itself or a copy."""
        return next(entry.used for entry in self._entries if entry.given is metric)

    # The engine's events

    def started(self, engine: Engine) -> None:
        """Reset, but for a run that goes on in its middle, here or by way of a checkpoint."""
        kept: list[Metric] = []
        if _continues(engine, self.usage):
            here = self._updated_at == engine.state.iteration
            kept = [leaf for leaf in self._leaves if here or _is_restored(leaf)]
            if not kept and self.usage.STARTED is Events.EPOCH_STARTED:
                engine.logger.warning(
                    "epoch %d goes on at iteration %d, but nothing is known of the metrics before: "
                    "%s will be those of its rest",
                    engine.state.epoch,
                    engine.epoch_iteration,
                    ", ".join(entry.name for entry in self._entries),
                )
        for entry in self._entries:
            for metric in entry.family:
                metric._store.restored = False
        fresh = [leaf for leaf in self._leaves if leaf not in kept] if kept else self._leaves
        for leaf in fresh:
            leaf._shared = None  # all of those that share a store are reset, or none
            leaf.started(engine)
        self._share(fresh)

    def iteration_completed(self, engine: Engine) -> None:
        """Update."""
        try:
            if self._updates:  # no_grad costs as much as a running average, which needs none
                with torch.no_grad():
                    for update in self._updates:
                        update(engine.state.output)
            for handler in self._handlers:
                handler(engine)
            self._updated_at = engine.state.iteration
        finally:
            self._scratch.clear()

    def completed(self, engine: Engine) -> None:
        """Compute; lazy ones show what this rank has."""
        for entry in self._lazy:
            entry.used._publish(engine, entry.name, entry.used._value_here())
        if self._eager:
            self._compute(engine, self._eager)

    def epoch_completed(self, engine: Engine) -> None:
        """Compute the lazy ones."""
        if self._lazy:
            self._compute(engine, self._lazy)

    def _compute(self, engine: Engine, entries: list[_Entry]) -> None:
        with Combined(metric for entry in entries for metric in entry.family):
            for entry in entries:
                entry.used.completed(engine, entry.name)

    # What a checkpoint keeps

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all metrics: a collective in a process group."""
        names = [entry.name for entry in self._entries]
        return {"names": names, "metrics": save_metrics(self._family())}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: other metrics are attached than were when it was saved.
        """
        names = [entry.name for entry in self._entries]
        if state_dict["names"] != names:
            raise ValueError(
                f"the state is that of the metrics {state_dict['names']}, but attached are {names}:"
                " attach the same, in the same order"
            )
        self._share(self._leaves)  # as all get new values
        load_metrics(self._family(), state_dict["metrics"])
        self.arrange_updates()

    def _family(self) -> list[Metric]:
        return list(dict.fromkeys(metric for leaf in self._leaves for metric in leaf._family()))

    # Whose state is used

    def _adopt(self, metric: Metric) -> Metric:
        """Return the metric itself; a copy of it where its state serves something else."""
        if metric in self._copies:
            return self._copies[metric]
        leaves = list(metric._leaves())
        if leaves != [metric]:
            unchanged = all(self._adopt(leaf) is leaf for leaf in leaves)
            return metric if unchanged else metric._clone(self._adopt)
        used = metric
        if any(self._is_taken(part) for part in metric._family()):
            used = _copy(metric)
            for part in used._family():
                part.reset()
        for part in used._family():
            part._leave_others()  # of an engine that is gone
            part._shared = None
            part._attachment = weakref.ref(self)
        used._scratch = self._scratch
        self._copies[metric] = used
        return used

    @staticmethod
    def _is_taken(metric: Metric) -> bool:
        return metric._attachment is not None and metric._attachment() is not None

    def _release(self, leaf: Metric) -> None:
        for part in leaf._family():
            part._attachment = None
        leaf._scratch = None
        leaf._store = leaf._store.copy()  # others may share this one
        leaf._shared = None

    def _arrange(self) -> None:
        """Work out what to do at each event."""
        before = self._leaves
        self._leaves = list(
            dict.fromkeys(leaf for entry in self._entries for leaf in entry.used._leaves())
        )
        for leaf in before:
            if leaf not in self._leaves:
                self._release(leaf)
        self._copies = {k: used for k, used in self._copies.items() if used in self._leaves}
        alike: dict[Hashable, list[Metric]] = {}
        for leaf in self._leaves:
            if (key := leaf._sharing_key()) is not None:
                alike.setdefault(key, []).append(leaf)
        self._groups = [_Group(leaves) for leaves in alike.values() if len(leaves) > 1]
        for leaf in set(self._leaves).difference(*(group.leaves for group in self._groups)):
            leaf._leave_others()  # as there are none now
            leaf._shared = None
        self.arrange_updates()
        lazy = [entry.used._is_lazy(self.usage) for entry in self._entries]
        self._lazy = [entry for entry, late in zip(self._entries, lazy, strict=True) if late]
        self._eager = [entry for entry, late in zip(self._entries, lazy, strict=True) if not late]

    def _share(self, leaves: Sequence[Metric]) -> None:
        """Let those of these metrics share a store that are updated alike."""
        among = set(leaves)
        changed = [group.share(among) for group in self._groups]
        if any(changed):
            self.arrange_updates()

    def arrange_updates(self) -> None:
        """Work out whom to update: each store once."""
        counting = {group.store: group.counting for group in self._groups}
        first: dict[Store, Metric] = {}
        for leaf in self._leaves:
            first.setdefault(leaf._store, leaf)
        self._updates, self._handlers = [], []
        for store, leaf in first.items():
            if type(leaf).iteration_completed is Metric.iteration_completed:
                self._updates.append(counting.get(store, leaf)._take)
            else:
                self._handlers.append(leaf.iteration_completed)


class _Group:
    """Metrics that are updated alike, so that one store can serve all of them.

    Args:
        leaves: the metrics, two or more.
    """

    def __init__(self, leaves: list[Metric]) -> None:
        self.leaves = leaves
        self.wanted = frozenset[Hashable]().union(*(leaf._wanted for leaf in leaves))
        sharing = next((leaf for leaf in leaves if leaf._store is leaf._shared), None)
        like = sharing or leaves[0]
        self.counting = copy.copy(like)
        """What the engine updates for all of them: an update of one of themselves is its own."""
        self.counting._scratch = like._scratch
        self.counting._store = like._store
        self.store = None if sharing is None else sharing._store

    def share(self, among: set[Metric]) -> bool:
        """Let those of them that are among these share a store, without their values.

        Tell whether that is new to any of them.
        """
        members = [leaf for leaf in self.leaves if leaf in among]
        if len(members) < 2:
            return False
        store, was = members[0]._store, self.store
        is_new = store is not was or any(leaf._store is not store for leaf in members)
        for leaf in members:
            leaf._store = leaf._shared = store
        self.store = self.counting._store = store
        self.counting.reset()
        store.wanted = self.wanted
        return is_new


def find_attached_metrics(engine: Engine, usage: MetricUsage) -> AttachedMetrics | None:
    """Return the metrics attached to an engine with a usage, None if there are none."""
    for handler in engine.handlers():
        owner = getattr(handler, "__self__", None)
        if isinstance(owner, AttachedMetrics) and owner.usage == usage:
            return owner
    return None


def attached_metrics(engine: Engine, usage: MetricUsage) -> AttachedMetrics:
    """Return the metrics attached to an engine with a usage, at first none."""
    return find_attached_metrics(engine, usage) or AttachedMetrics(engine, usage)


def _continues(engine: Engine, usage: MetricUsage) -> bool:
    """Tell whether a run goes on in the middle of what the usage's first event begins."""
    if usage.STARTED is Events.STARTED:
        return engine.state.iteration > 0
    return usage.STARTED is Events.EPOCH_STARTED and engine.epoch_iteration > 0


def _is_restored(metric: Metric) -> bool:
    return any(part._store.restored for part in metric._family())


def _copy(metric: Metric) -> Metric:
    return metric._clone(_copy)
