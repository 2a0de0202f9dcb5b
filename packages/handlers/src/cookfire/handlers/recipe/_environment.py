"""The environment that decides bits: set before torch is imported, checked, and described.

ATen, oneDNN and MKL each choose kernels by the processor, and OpenMP splits sums by its threads;
all of them read their variables when torch is loaded. So a profile's ``environment:`` is applied by
starting the same command once more.
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from cookfire.distributed import xla
from cookfire.handlers.recipe._errors import RecipeError, show_path

REEXECUTED = "COOKFIRE_REEXECUTED"
"""Holds the id of the process that was re-executed; a process keeps its id, its children differ."""

INSTRUCTION_SETS = ("DEFAULT", "AVX2", "AVX512")
"""Of x86-64, from the weakest to the strongest, as ATen names them."""

OTHER_SETS = ("SVE256", "VSX", "ZVECTOR")

logger = logging.getLogger("cookfire.handlers.recipe")


def require(variables: Mapping[str, str | int], *, where: str, restart: bool = True) -> None:
    """Make the process's environment hold the variables, by re-executing the command if need be.

    Args:
        variables: what the profile asks for.
        where: the file and key that ask for it, for the messages.
        restart: False if the process is not the command's own (arguments were passed in Python).

    Raises:
        RecipeError: the environment differs and can't be changed any more.
    """
    wanted = {name: str(value) for name, value in variables.items()}
    differing = {name: value for name, value in wanted.items() if os.environ.get(name) != value}
    if not differing:
        return
    if not restart or os.environ.get(REEXECUTED) == str(os.getpid()):
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in differing.items())
        raise RecipeError(
            f"{where}: these must be set before Python starts, and are not: {settings}"
        )
    environment = {**os.environ, **wanted, REEXECUTED: str(os.getpid())}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError as error:  # a value longer than the system takes
        raise RecipeError(f"{where}: can't be set: {error.strerror}") from error


def check_instruction_set(variables: Mapping[str, str | int], *, where: str) -> None:
    """Compare what the profile asks ATen for with what it uses; say aloud what this machine lacks.

    A machine without the instruction set can still run the recipe, and verify decides by tolerance
    there; a value that ATen does not know would be ignored by it, and is refused.
    """
    wanted = str(variables.get("ATEN_CPU_CAPABILITY", "")).upper()
    found = torch.backends.cpu.get_cpu_capability()
    if wanted in ("", found):
        return
    key = f"{where}.ATEN_CPU_CAPABILITY"
    if wanted not in (*INSTRUCTION_SETS, *OTHER_SETS):
        known = ", ".join(name.lower() for name in (*INSTRUCTION_SETS, *OTHER_SETS))
        raise RecipeError(f"{key}: expected one of {known}, got {wanted.lower()!r}")
    logger.warning("%s: this processor has no %s; it runs with %s, so that bits may differ from "
                   "other machines'", key, wanted, found)  # fmt: skip


def prepare_process(*, compiles: bool) -> None:
    """Set what each process needs: threads, and an error instead of an algorithm that drifts.

    Args:
        compiles: whether the process will use torch.compile.
    """
    if (threads := _threads(os.environ)) is not None:
        torch.set_num_threads(threads)
    # cuBLAS is deterministic only with a workspace of fixed size, read when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiles:
        torch.use_deterministic_algorithms(True)
    else:
        # The same, but for the compiler, which the call above imports: seconds at each start.
        torch.set_deterministic_debug_mode("error")
    # It would also fill new tensors, for code that reads what it never wrote: 7 % of a training.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by torch's own hook, unseen by its types
    torch.backends.cudnn.benchmark = False


def describe(
    *, world_size: int, device: str = "cpu", variables: Mapping[str, str] | None = None
) -> dict[str, str | int]:
    """Return what bits depend on beside the code, the most telling first.

    Args:
        world_size: processes that share each batch.
        device: ``cpu``, or the accelerator's name.
        variables: environment variables, where not this process's: what a run with them would use.
    """
    given = os.environ if variables is None else variables
    return {
        "torch": torch.__version__,
        "torch_build": str(torch.version.git_version)[:12],
        "device": device,
        "machine": platform.machine(),
        "instruction_set": _instruction_set(given),
        "onednn_isa": given.get("ONEDNN_MAX_CPU_ISA", "unset"),
        "mkl_cbwr": given.get("MKL_CBWR", "unset"),
        "threads": _threads(given) or torch.get_num_threads(),
        "world_size": world_size,
        "processor": _processor(),
    }


def in_order(environment: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return a description that was read from a file with its entries in ``describe``'s order."""
    return {name: environment[name] for name in describe(world_size=1) if name in environment}


def describe_device(device: torch.device) -> str:
    """Return the accelerator's full name, since bits differ from one model to the next."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type == "xla":
        return f"xla: {xla.describe()}"
    return device.type


def describe_default_device(variables: Mapping[str, str]) -> str:
    """Return the device that a process with these environment variables would compute on."""
    if variables.get("CUDA_VISIBLE_DEVICES") == "" or not torch.accelerator.is_available():
        return "cpu"
    return describe_device(torch.device(torch.accelerator.current_accelerator() or "cpu"))


def where(params_yaml: Path, profile: str) -> str:
    """Return how messages name a profile's environment."""
    return f"{show_path(params_yaml)}: {profile}.environment"


def _threads(variables: Mapping[str, str]) -> int | None:
    text = variables.get("OMP_NUM_THREADS", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


def _instruction_set(variables: Mapping[str, str]) -> str:
    found = torch.backends.cpu.get_cpu_capability()
    wanted = variables.get("ATEN_CPU_CAPABILITY", "").upper()
    known = [name for name in (found, wanted) if name in INSTRUCTION_SETS]
    return min(known, key=INSTRUCTION_SETS.index) if len(known) == 2 else found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
