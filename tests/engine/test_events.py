"""Events, filters, custom events, and handlers."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import ignite.engine
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookfire.engine import Engine, EventEnum, Events, EventsList


def nothing(engine: Engine, batch: object) -> None:
    """A step that does nothing."""


class Phase(EventEnum):
    FORWARD = "forward"
    BACKWARD = "backward"


WINDOWS = st.builds(
    lambda after, width: {"after": after, "before": after + width},
    st.integers(0, 9),
    st.integers(2, 9),
)
FILTERS = st.one_of(
    st.fixed_dictionaries({"every": st.integers(1, 7)}),
    st.fixed_dictionaries({"once": st.integers(1, 12)}),
    st.fixed_dictionaries({"once": st.lists(st.integers(1, 12), min_size=1)}),
    st.fixed_dictionaries({"before": st.integers(0, 12)}),
    st.fixed_dictionaries({"after": st.integers(0, 12)}),
    WINDOWS,
    st.builds(lambda window, every: window | {"every": every}, WINDOWS, st.integers(1, 5)),
)


@given(filters=st.lists(FILTERS, min_size=1, max_size=4), length=st.integers(1, 5))
def test_filters_are_heard_when_ignite_hears_them(filters: list[dict], length: int) -> None:
    heard: dict[str, list] = {"ours": [], "theirs": []}
    for name, module in (("ours", None), ("theirs", ignite.engine)):
        events = Events if module is None else module.Events
        engine = (Engine if module is None else module.Engine)(lambda engine, batch: None)
        for event in (events.ITERATION_COMPLETED, events.EPOCH_STARTED, events.GET_BATCH_STARTED):
            for index, arguments in enumerate(filters):
                engine.add_event_handler(
                    event(**arguments),
                    lambda engine, index, event, name=name: heard[name].append(
                        (event, index, engine.state.epoch, engine.state.iteration)
                    ),
                    index,
                    event.name,
                )
        engine.run(range(length), max_epochs=3)
    assert heard["ours"] == heard["theirs"]


def test_a_filtered_handler_keeps_its_place_among_the_others() -> None:
    order: list[str] = []
    engine = Engine(nothing)
    engine.add_event_handler(Events.ITERATION_COMPLETED, order.append, "a")
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=2), order.append, "b")
    engine.add_event_handler(Events.ITERATION_COMPLETED, order.append, "c")
    engine.run(range(3))
    assert "".join(order) == "acabcac"


def test_a_predicate_is_asked_with_the_engine_and_the_count() -> None:
    asked: list[tuple[object, int]] = []
    heard: list[int] = []
    engine = Engine(nothing)

    def odd(engine: Engine, count: int) -> bool:
        asked.append((engine, count))
        return count % 2 == 1

    engine.add_event_handler(
        Events.ITERATION_COMPLETED(event_filter=odd), lambda e: heard.append(e.state.iteration)
    )
    engine.run(range(4))
    assert asked == [(engine, count) for count in (1, 2, 3, 4)]
    assert heard == [1, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"every": 0},
        {"every": 2.5},
        {"every": True},
        {"once": 0},
        {"once": []},
        {"once": [1, -1]},
        {"before": -1},
        {"once": 1, "every": 2},
        {"once": 1, "before": 2},
        {"every": 2, "event_filter": lambda engine, count: True},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="got"):
        Events.EPOCH_COMPLETED(**arguments)


def test_a_predicate_must_be_callable() -> None:
    with pytest.raises(TypeError, match="event_filter must be a function"):
        Events.EPOCH_COMPLETED(event_filter=3)


def test_every_one_is_no_filter_at_all() -> None:
    assert Events.EPOCH_COMPLETED(every=1).filter is None


def test_events_print_as_their_values() -> None:
    assert str(Events.EPOCH_COMPLETED) == "epoch_completed"
    assert f"{Events.EPOCH_COMPLETED}" == "epoch_completed"
    assert str(Events.EPOCH_COMPLETED(every=5)) == "epoch_completed(every=5)"
    assert str(Events.STARTED | Events.EPOCH_STARTED(once=2)) == "started | epoch_started(once=2)"
    assert Events.EPOCH_COMPLETED(every=5).name == "EPOCH_COMPLETED"
    assert Events.EPOCH_COMPLETED(every=5).value == "epoch_completed"
    assert "every=5" in repr(Events.EPOCH_COMPLETED(every=5))


def test_stacked_events_share_a_handler() -> None:
    heard: list[str] = []
    engine = Engine(nothing)
    events = Events.EPOCH_COMPLETED(every=2) | Events.COMPLETED | Events.STARTED
    assert isinstance(events, EventsList)
    assert len(events | events) == 6
    engine.add_event_handler(events, lambda: heard.append(str(engine.last_event_name)))
    engine.run([0], max_epochs=4)
    assert heard == ["started", "epoch_completed", "epoch_completed", "completed"]


def test_only_events_can_be_stacked() -> None:
    with pytest.raises(TypeError, match="only events can be joined"):
        Events.STARTED | "completed"


def test_custom_events_are_counted_and_filtered_at_once() -> None:
    heard: list[int] = []
    engine = Engine(lambda engine, batch: engine.fire_event(Phase.FORWARD))
    engine.register_events(*Phase)
    engine.add_event_handler(Phase.FORWARD(every=2), lambda e: heard.append(e.state.iteration))
    engine.run(range(5))
    assert heard == [2, 4]
    assert engine.state.get_event_attrib_value(Phase.FORWARD) == 5
    assert engine.state.get_event_attrib_value(Phase.FORWARD(every=2)) == 5


def test_a_counter_attribute_advances_by_itself_or_by_the_step_never_twice() -> None:
    counts: list[tuple[int, int]] = []

    def step(engine: Engine, batch: int) -> None:
        if batch:
            engine.state.forwards += 1
        engine.fire_event(Phase.FORWARD)
        engine.fire_event(Phase.BACKWARD)
        counts.append((engine.state.forwards, engine.state.iteration))

    engine = Engine(step)
    engine.register_events(*Phase, event_to_attr=dict.fromkeys(Phase, "forwards"))
    engine.run([0, 1, 0, 1, 1])
    assert counts == [(count, count) for count in range(1, 6)]


def test_a_counter_that_the_step_sets_back_is_heard_again() -> None:
    heard: list[int] = []

    def step(engine: Engine, batch: int) -> None:
        engine.state.piece = 0
        for piece in range(1, 4):
            engine.state.piece = piece
            engine.fire_event(Phase.FORWARD)

    engine = Engine(step)
    engine.register_events(Phase.FORWARD, event_to_attr={Phase.FORWARD: "piece"})
    engine.add_event_handler(Phase.FORWARD(every=2), lambda e: heard.append(e.state.iteration))
    engine.run(range(3))
    assert heard == [1, 2, 3]


def test_registering_changes_nothing_for_other_engines() -> None:
    first, second = Engine(nothing), Engine(nothing)
    first.register_events(*Phase, event_to_attr={Phase.FORWARD: "forwards"})
    assert first.has_registered_events(Phase.FORWARD(every=2) | Phase.BACKWARD)
    assert not second.has_registered_events(Phase.FORWARD)
    assert not hasattr(second.state, "forwards")


def test_plain_strings_serve_as_events() -> None:
    heard: list[str] = []
    engine = Engine(lambda engine, batch: engine.fire_event("saved"))
    engine.register_events("saved")
    engine.add_event_handler("saved", heard.append, "saved")
    engine.run(range(2))
    assert heard == ["saved", "saved"]


def test_unknown_events_are_refused_by_name() -> None:
    engine = Engine(nothing)
    engine.register_events(Phase.FORWARD)
    with pytest.raises(ValueError, match=r"'backward' is not registered.*registered: forward"):
        engine.add_event_handler(Phase.BACKWARD, print)
    for text in ("EPOCH_COMPLETED", "epoch_completed"):
        with pytest.raises(ValueError, match=r"is a text; did you mean Events.EPOCH_COMPLETED\?"):
            engine.add_event_handler(text, print)
    with pytest.raises(ValueError, match="'backward' is not registered"):
        engine.fire_event(Phase.BACKWARD)
    with pytest.raises(ValueError, match="'backward' is not among"):
        engine.register_events(Phase.FORWARD, event_to_attr={Phase.BACKWARD: "x"})
    with pytest.raises(TypeError, match="expects members of an EventEnum"):
        engine.register_events(3)
    with pytest.raises(TypeError, match="expected an event"):
        engine.add_event_handler(3, print)


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def method(self, engine: Engine) -> None:
        self.calls.append(("method", engine))

    def __call__(self, engine: Engine, word: str, *, number: int = 0) -> None:
        self.calls.append((word, number, engine))


def test_handlers_get_the_engine_if_there_is_room_for_it() -> None:
    calls: list[tuple] = []
    recorder = Recorder()
    engine = Engine(nothing)
    add = partial(engine.add_event_handler, Events.STARTED)
    add(lambda: calls.append(()))
    add(lambda engine: calls.append((engine,)))
    add(lambda *args, **kwargs: calls.append((args, kwargs)), 1, a=2)
    add(lambda word: calls.append((word,)), "only")
    add(recorder.method)
    add(recorder, "called", number=3)
    add(partial(lambda engine, word: calls.append((word,)), word="partial"))
    engine.run([0])
    assert calls == [(), (engine,), ((engine, 1), {"a": 2}), ("only",), ("partial",)]
    assert recorder.calls == [("method", engine), ("called", 3, engine)]


def test_a_handler_with_a_wrong_signature_is_refused_when_it_is_attached() -> None:
    def needs_two(engine: Engine, other: int) -> None:
        """Never called."""

    engine = Engine(nothing)
    with pytest.raises(TypeError, match=r"needs_two'.*test_events.py:\d+\).*would call it with"):
        engine.add_event_handler(Events.STARTED, needs_two)
    with pytest.raises(TypeError, match="must be callable"):
        engine.add_event_handler(Events.STARTED, "print")
    assert not engine.has_event_handler(needs_two)


def test_a_step_with_a_wrong_signature_is_refused() -> None:
    with pytest.raises(TypeError, match=r"step .*<lambda>.* must take \(engine, batch\)"):
        Engine(lambda batch: None)
    with pytest.raises(TypeError, match="Engine expects a step"):
        Engine(None)


def test_an_error_in_a_handler_names_handler_event_and_place() -> None:
    def breaks() -> None:
        raise KeyError("accuracy")

    engine = Engine(nothing)
    engine.add_event_handler(Events.EPOCH_COMPLETED(every=2), breaks)
    with pytest.raises(KeyError) as caught:
        engine.run([0, 1], max_epochs=3)
    (note,) = caught.value.__notes__
    assert "breaks' (" in note
    assert "test_events.py:" in note
    assert "'epoch_completed' (epoch 2, iteration 4)" in note


def test_an_error_in_the_step_names_the_step_and_the_iteration() -> None:
    def step(engine: Engine, batch: int) -> float:
        return 1 / batch

    with pytest.raises(ZeroDivisionError) as caught:
        Engine(step).run([2, 1, 0])
    assert "the step" in caught.value.__notes__[0]
    assert "(epoch 1, iteration 3)" in caught.value.__notes__[0]


def test_handlers_are_found_and_removed() -> None:
    heard: list[str] = []
    engine = Engine(nothing)
    handle = engine.add_event_handler(
        Events.STARTED | Events.COMPLETED(every=1), heard.append, "both"
    )
    engine.add_event_handler(Events.STARTED, heard.append, "other")
    assert engine.has_event_handler(heard.append)
    assert engine.has_event_handler(heard.append, Events.COMPLETED)
    assert not engine.has_event_handler(heard.append, Events.EPOCH_STARTED)
    assert list(engine.handlers()) == [heard.append]
    handle.remove()
    handle.remove()
    engine.run([0])
    assert heard == ["other"]
    engine.remove_event_handler(heard.append, Events.STARTED)
    assert not engine.has_event_handler(heard.append)
    with pytest.raises(ValueError, match="is not attached to the event 'started'"):
        engine.remove_event_handler(heard.append, Events.STARTED)


def test_a_handle_as_context_removes_on_leaving() -> None:
    heard: list[str] = []
    engine = Engine(nothing)
    with engine.add_event_handler(Events.STARTED, heard.append, "in"):
        engine.run([0])
    engine.run([0])
    assert heard == ["in"]


def test_a_handler_may_attach_and_remove_handlers_during_the_run() -> None:
    heard: list[tuple[str, int]] = []
    engine = Engine(nothing)

    def late(engine: Engine) -> None:
        heard.append(("late", engine.state.iteration))

    @engine.on(Events.ITERATION_STARTED(once=2))
    def attach(engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, late)

    @engine.on(Events.ITERATION_COMPLETED(once=4))
    def remove(engine: Engine) -> None:
        engine.remove_event_handler(late, Events.ITERATION_COMPLETED)

    engine.run(range(6))
    assert heard == [("late", 2), ("late", 3), ("late", 4)]


def test_an_engine_and_what_its_handlers_hold_is_freed_without_the_collector() -> None:
    class Model:
        def handler(self, engine: Engine) -> None:
            """Stands for a handler that holds much memory."""

    gc.disable()
    try:
        model = Model()
        engine = Engine(nothing)
        engine.add_event_handler(Events.ITERATION_COMPLETED, model.handler)
        engine.run(range(3))
        alive = weakref.ref(model), weakref.ref(engine)
        del model, engine
        assert [reference() for reference in alive] == [None, None]
    finally:
        gc.enable()
