"""XLA gives what plain torch gives on the CPU: on one device, and on four by SPMD."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from . import programs


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same programs without XLA."""
    folder = tmp_path_factory.mktemp("cpu")
    results = {name: function() for name, function in programs.EVERYTHING.items()}
    return results | {"saved": programs.save(folder), "path": next(folder.glob("*.pt"))}


@pytest.fixture(scope="module", params=[1, 4], ids=["one device", "four devices"])
def xla(request, on_xla, cpu, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("xla")
    results = on_xla(request.param, "tests.xla.programs", "on_all_devices", cpu["path"], folder)
    return results | {"path": next(folder.glob("*.pt")), "count": request.param}


def test_it_is_one_process_however_many_devices_there_are(xla):
    devices = f"CPU x{xla['count']}, torch_xla 2.9.0"
    assert xla["config"] == {
        "backend": "xla",
        "model_name": "xla-dist",
        "place": 1,
        "device": "xla:0",
        "devices": devices,
        "collectives": (3, ["a"], 0.5),
    }


def test_losses_equal_the_cpus(xla, cpu):
    assert len(xla["losses"]) == 6
    assert xla["losses"] == pytest.approx(cpu["losses"], abs=1e-5)


def test_metrics_equal_the_cpus_and_none_waits_for_the_device(xla, cpu):
    assert xla["metrics"].keys() == cpu["metrics"].keys()
    for name, expected in cpu["metrics"].items():
        torch.testing.assert_close(
            torch.as_tensor(xla["metrics"][name], dtype=torch.float64),
            torch.as_tensor(expected, dtype=torch.float64),
            rtol=1e-6,
            atol=1e-6,
            msg=name,
        )


def test_bfloat16_trains(xla):
    half = xla["half_precise"]
    assert half["dtypes"] == {torch.bfloat16}
    assert half["last"] < 0.5 * half["first"]


def test_a_checkpoint_of_xla_loads_on_the_cpu(xla):
    states = torch.load(xla["path"], weights_only=True)
    for name, expected in xla["saved"].items():
        assert states["model"][name].device.type == "cpu"
        assert torch.equal(states["model"][name], expected)
    weights, _ = programs.load(xla["path"])
    assert all(torch.equal(weights[name], expected) for name, expected in xla["saved"].items())


def test_a_checkpoint_of_the_cpu_loads_on_xla(xla, cpu):
    weights, momentum = xla["loaded"]
    assert all(torch.equal(weights[name], value) for name, value in cpu["saved"].items())
    states = torch.load(cpu["path"], weights_only=True)
    assert torch.equal(momentum, states["optimizer"]["state"][0]["momentum_buffer"])


def test_a_run_with_dropout_goes_on_from_its_middle_as_if_it_had_never_stopped(xla):
    whole, rest = xla["resumed"]
    assert (len(whole), len(rest)) == (6, 4)
    assert rest == whole[2:]


def test_a_loss_that_is_not_finite_ends_the_run_at_the_next_look(xla):
    assert xla["stopped_by_nan"] == 6


def test_an_optimizer_of_parameters_that_xla_has_replaced_is_refused(xla):
    assert "a parameter is on cpu" in xla["orphaned_parameters"]
    assert "create the optimizer after auto_model" in xla["orphaned_parameters"]


def test_what_would_hang_or_train_nothing_is_refused_at_once(on_xla):
    too_late, replicas, strangers = on_xla(2, "tests.xla.programs", "refused")
    assert "import torch_xla at the top of the program" in too_late
    assert replicas == (
        "XLA on CPU cannot run collectives between replicas (pytorch/xla#9089); use SPMD or "
        "CPU_NUM_DEVICES=1"
    )
    assert "2 processes were started, of which XLA's devices know nothing" in strangers
