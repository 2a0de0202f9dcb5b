"""Where the time of a run goes: by event, and by handler."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any

from cookfire.engine import Engine, Events
from cookfire.handlers._recorder import Recorder, Series

__all__ = ["BasicTimeProfiler", "HandlersTimeProfiler"]

_WIDTH = 100
_ITERATION_EVENTS = (
    Events.GET_BATCH_STARTED,
    Events.GET_BATCH_COMPLETED,
    Events.ITERATION_STARTED,
    Events.ITERATION_COMPLETED,
)
_EPOCH_EVENTS = (Events.EPOCH_STARTED, Events.EPOCH_COMPLETED)
_RUN_EVENTS = (Events.STARTED, Events.COMPLETED)
_EVENTS = (*_RUN_EVENTS, *_EPOCH_EVENTS, *_ITERATION_EVENTS)
_HEADER = ("total", "mean", "std", "min", "max", "at")


class BasicTimeProfiler:
    """Times the data, the step, and the handlers of each event.

    A device works on its own while the program goes on: the step's time is that of telling it what
    to do, unless something waits for it. ``torch.cuda.synchronize()`` in the step makes them equal.

    Example:
        >>> profiler = BasicTimeProfiler()
        >>> profiler.attach(trainer)
        >>> state = trainer.run(data, max_epochs=3)
        >>> sorted(profiler.get_results())
        ['dataflow_stats', 'event_handlers_names', 'event_handlers_stats', 'processing_stats']
        >>> profiler.write_results(folder / "times.csv")
    """

    def __init__(self) -> None:
        self._recorder = Recorder()

    def attach(self, engine: Engine) -> None:
        """Time the runs of ``engine``; a run that begins anew starts from zero."""
        self._recorder.attach(engine)

    def get_results(self) -> dict[str, dict[str, Any]]:
        """Return the statistics, in seconds.

        Returns:
            ``processing_stats`` (of the step) and ``dataflow_stats`` (of the data), each with
            ``total``, ``min/index``, ``max/index``, ``mean`` and ``std``; ``event_handlers_stats``
            with the same for each event, and their ``total_time``; ``event_handlers_names`` with
            the names of the handlers that were called, by event.
        """
        recorder = self._recorder
        names: dict[str, list[str]] = {}
        for handler, event, _ in recorder.by_name():
            names.setdefault(f"{event}_names", []).append(handler)
        events: dict[str, Any] = {
            event if isinstance(event, str) else event.name: series.statistics()
            for event, series in recorder.events.items()
            if any(series.seconds)
        }
        events["total_time"] = sum(one["total"] for one in events.values())
        return {
            "processing_stats": recorder.processing.statistics(),
            "dataflow_stats": recorder.dataflow.statistics(),
            "event_handlers_stats": events,
            "event_handlers_names": names,
        }

    def write_results(self, output_path: str | Path) -> None:
        """Write a CSV file with a row for each iteration; what an epoch has once is repeated.

        Args:
            output_path: the file.
        """
        recorder = self._recorder
        found = {event: recorder.events.get(event, Series()) for event in _EVENTS}
        times = {
            event: dict(zip(series.counts, series.seconds, strict=True))
            for event, series in found.items()
        }
        data = dict(zip(recorder.dataflow.counts, recorder.dataflow.seconds, strict=True))
        rows = []
        series = recorder.processing
        for epoch, count, seconds in zip(
            recorder.epochs, series.counts, series.seconds, strict=True
        ):
            row = [epoch, count, seconds, data.get(count - 1, "")]
            for event in _EVENTS:
                if event in _RUN_EVENTS:
                    row.append(sum(found[event].seconds))
                elif event in _EPOCH_EVENTS:
                    row.append(times[event].get(epoch, ""))
                else:
                    # A batch is fetched before its iteration is counted.
                    before = "GET_BATCH" in event.name
                    row.append(times[event].get(count - before, ""))
            rows.append(row)
        columns = ["epoch", "iteration", "processing_stats", "dataflow_stats"]
        _write(output_path, [*columns, *(f"Event_{event.name}" for event in _EVENTS)], rows)

    @staticmethod
    def print_results(results: dict[str, dict[str, Any]]) -> str:
        """Print what :meth:`get_results` returned as a table, and return it.

        Args:
            results: the statistics.
        """
        rows: list[Sequence[Any]] = [
            ("the step", results["processing_stats"]),
            ("the data", results["dataflow_stats"]),
        ]
        for event, statistics in results["event_handlers_stats"].items():
            if event != "total_time":
                rows.append((event, statistics))
        lines = [_line("", _HEADER), _line("", ["-" * 8] * len(_HEADER))]
        lines += [_line(name, _cells(statistics)) for name, statistics in rows]
        total = results["event_handlers_stats"]["total_time"]
        lines.append(_line("all handlers", [_seconds(total)]))
        for event, names in results["event_handlers_names"].items():
            text = f"{event.removesuffix('_names')}: {', '.join(names)}"
            lines += wrap(text, _WIDTH, subsequent_indent="    ")
        return _print(lines)


class HandlersTimeProfiler:
    """Times each handler, and the data and the step.

    The step's time is to be read as that of :class:`BasicTimeProfiler`.

    Example:
        >>> profiler = HandlersTimeProfiler()
        >>> profiler.attach(trainer)
        >>> handle = trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: None)
        >>> state = trainer.run(data, max_epochs=3)
        >>> [row[0] for row in profiler.get_results()]
        ['<lambda>', 'Total', 'Processing', 'Dataflow']
        >>> profiler.write_results(folder / "times.csv")
    """

    def __init__(self) -> None:
        self._recorder = Recorder()

    def attach(self, engine: Engine) -> None:
        """Time the runs of ``engine``, also the handlers that are attached later."""
        self._recorder.attach(engine)

    def get_results(self) -> list[list[Any]]:
        """Return the statistics, in seconds.

        Returns:
            A row for each handler, the longest first: name, event, total, (minimum, index),
            (maximum, index), mean, standard deviation. Then rows for the total of the handlers,
            the step (``Processing``) and the data (``Dataflow``).
        """
        recorder = self._recorder
        rows = [[name, event, *_row(series)] for name, event, series in recorder.by_name()]
        rows.append(["Total", "", sum(row[2] for row in rows), "", "", "", ""])
        rows.append(["Processing", "None", *_row(recorder.processing)])
        rows.append(["Dataflow", "None", *_row(recorder.dataflow)])
        return rows

    def write_results(self, output_path: str | Path) -> None:
        """Write a CSV file: a column for each handler, with the seconds of each of its calls.

        Args:
            output_path: the file.
        """
        recorder = self._recorder
        columns = {
            "processing_stats": recorder.processing.seconds,
            "dataflow_stats": recorder.dataflow.seconds,
        }
        series = [one.seconds for _, _, one in recorder.by_name()]
        names = [f"{name} ({event})" for name, event, _ in recorder.by_name()]
        calls = zip_longest(*columns.values(), *series, fillvalue="")
        rows = [[number, *row] for number, row in enumerate(calls, 1)]
        _write(output_path, ["#", *columns, *names], rows)

    @staticmethod
    def print_results(results: list[list[Any]]) -> str:
        """Print what :meth:`get_results` returned as a table, and return it.

        Args:
            results: the rows.
        """
        lines = [_line("handler", _HEADER, "event"), _line("", ["-" * 8] * len(_HEADER))]
        for name, event, total, least, most, mean, deviation in results:
            if name == "Total":
                lines += ["", _line("all handlers", [_seconds(total)])]
                continue
            statistics = {"total": total, "min/index": least, "max/index": most, "mean": mean}
            name = {"Processing": "the step", "Dataflow": "the data"}.get(name, name)
            cells = _cells({**statistics, "std": deviation})
            lines.append(_line(name, cells, "" if event == "None" else event))
        return _print(lines)


def _row(series: Series) -> list[Any]:
    one = series.statistics()
    return [one["total"], one["min/index"], one["max/index"], one["mean"], one["std"]]


def _cells(one: dict[str, Any]) -> list[str]:
    (least, _), (most, at) = one["min/index"], one["max/index"]
    numbers = [one["total"], one["mean"], one["std"], least, most]
    return [*map(_seconds, numbers), "" if at is None else f"#{at}"]


def _line(name: str, cells: Sequence[str], event: str = "") -> str:
    event = _shortened(event, 19)
    left = f"{_shortened(name, 26):26} {event:19}" if event else f"{_shortened(name, 46):46}"
    return (left + "".join(f"{cell:>9}" for cell in cells)).rstrip()


def _shortened(text: str, width: int) -> str:
    # The end of a qualified name says more than its beginning.
    return text if len(text) <= width else "…" + text[1 - width :]


def _seconds(value: float | None) -> str:
    """Write seconds with three digits and a unit.

    >>> [_seconds(value) for value in (0.0, 0.0000123, 0.0456, 7.891, 123.4, 4567.8, None)]
    ['0 s', '12.3 µs', '45.6 ms', '7.89 s', '123 s', '4568 s', '-']
    """
    if value is None:
        return "-"
    if value == 0:
        return "0 s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size or unit == "µs":
            value /= size
            digits = max(0, 2 - math.floor(math.log10(value))) if value >= 1 else 2
            return f"{value:.{digits}f} {unit}"
    raise AssertionError("the last unit takes everything")


def _write(path: str | Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _print(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    print(text)
    return text
