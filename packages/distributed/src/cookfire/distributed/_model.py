"""Fitting a model and its optimizer to the processes and the device that there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar, cast
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ._checks import check_options, check_type
from ._gradients import make_reproducible
from ._group import backend, device, get_world_size, is_active
from ._log import announce
from ._uneven import note_wrapped

SomeOptimizer = TypeVar("SomeOptimizer", bound=Optimizer)
Shard = Collection[type[nn.Module]] | Callable[[str, nn.Module], bool]

_WRAPS = ("ddp", "fsdp")
# Parameters that sharding has put others in the place of, as long as somebody holds them; by id,
# since tensors compare element by element.
_replaced: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()


def auto_model(
    model: nn.Module,
    sync_bn: bool = False,
    *,
    wrap: Literal["ddp", "fsdp"] = "ddp",
    shard: Shard = (),
    compile: bool | Mapping[str, Any] = False,  # noqa: A002 - torch's own word for it
    **kwargs: Any,
) -> nn.Module:
    """Move a model to this process's device and, among several processes, wrap it for them.

    Make the optimizer afterwards, from the parameters of what is returned.

    Args:
        model: Any module.
        sync_bn: Compute the statistics of batch normalization over all processes.
        wrap: ``"ddp"`` keeps the whole model in every process (``DistributedDataParallel``), for a
            model that fits into one device with its optimizer. ``"fsdp"`` shards parameters,
            gradients and the optimizer's state over the processes
            (``torch.distributed.fsdp.fully_shard``), for a larger one: the module itself, changed
            in place, its parameters' names as before.
        shard: With ``"fsdp"``, the submodules whose parameters are gathered as one, just before
            they compute: classes, as ``[Block]``, or ``(name, module) -> bool``. The fewer a unit
            has, the less memory; the more, the fewer exchanges. What is in none of them is a unit
            of its own, so that without any the whole model is one.
        compile: Give the model to ``torch.compile``, with these options of it if a mapping. It is
            done beneath ``DistributedDataParallel``, so that backward passes and exchanges still
            overlap, and to each unit beneath ``fully_shard``, as far as there are any.
        **kwargs: Those of ``DistributedDataParallel``, such as ``find_unused_parameters``, or of
            ``fully_shard``, such as ``mp_policy``.

    Raises:
        ValueError: ``sync_bn`` is asked for among several processes that compute on the CPU, or
            ``wrap`` is unknown, or ``shard`` matches nothing or is given without ``"fsdp"``; with
            the backend xla, ``"fsdp"`` or ``compile`` is.
        TypeError: An option is of the wrong type, or there is none of that name; also where one
            process alone has no use for it.

    Returns:
        A ``DistributedDataParallel`` where there are several processes and the model has something
        to train, the sharded model with ``"fsdp"`` in a group of any size, else the model itself,
        compiled or not. Never a ``DataParallel``: one process uses one device. Where torch is told
        to be deterministic (``torch.use_deterministic_algorithms``), gradients of more than two
        processes are added up in the order of the ranks, so that a resumed run gives the bits of
        one that never stopped.

    Example:
        >>> auto_model(nn.Linear(2, 1))  # in one process
        Linear(in_features=2, out_features=1, bias=True)
    """
    check_type("auto_model: model", model, nn.Module, "a torch.nn.Module")
    check_type("auto_model: sync_bn", sync_bn, bool, "True or False")
    if wrap not in _WRAPS:
        raise ValueError(f"wrap={wrap!r}: expected one of {', '.join(map(repr, _WRAPS))}")
    _check_shard(shard)
    if wrap != "fsdp" and shard:
        raise ValueError(f"shard={shard!r}: expected wrap='fsdp' too, given {wrap!r}")
    options = _options_of_compile(compile)
    _check_options_of_wrap(wrap, kwargs)
    units = _units(model, shard)
    if isinstance(model, DistributedDataParallel) or hasattr(model, "set_requires_gradient_sync"):
        note_wrapped(model)
        return model  # wrapped by somebody already
    if backend() == "xla":
        return _on_xla(model, sync_bn, wrap, options)
    where = device()
    if any(tensor.device != where for tensor in [*model.parameters(), *model.buffers()]):
        model.to(where)
    if not is_active() and where.type != "cpu" and torch.accelerator.device_count() > 1:
        announce(
            "cookfire.distributed.auto",
            f"using 1 of {torch.accelerator.device_count()} devices; to use all, run with "
            "Parallel(backend='nccl', nproc_per_node=...) or torchrun --nproc_per_node=...",
        )
    trains = any(parameter.requires_grad for parameter in model.parameters())
    if sync_bn and trains and get_world_size() > 1:
        if where.type == "cpu":
            raise ValueError("sync_bn=True: torch can do that on accelerators only, not on the CPU")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch has no types there
        units = _units(model, shard)
    if wrap == "fsdp" and is_active():
        return _sharded(model, units, options, kwargs)
    if options is not None:
        model = cast("nn.Module", torch.compile(model, **options))
    if wrap == "fsdp" or get_world_size() == 1 or not trains:
        return model
    if where.type != "cpu":
        kwargs = {"device_ids": [where.index]} | kwargs
    wrapped = DistributedDataParallel(model, **kwargs)
    make_reproducible(wrapped)
    note_wrapped(wrapped)
    return wrapped


def auto_optim(optimizer: SomeOptimizer, **kwargs: Any) -> SomeOptimizer:
    """Give the optimizer back: the model's wrapping has averaged the gradients already.

    With the backend xla, replicas average them before each step from here on; a script that calls
    this runs with either.

    Raises:
        TypeError: Options are given, of which no backend of now has any, or no optimizer.
        ValueError: The optimizer was created before :func:`auto_model` sharded the model, or moved
            it to an XLA device: the parameters are new ones.
    """
    if kwargs:
        raise TypeError(f"auto_optim: unexpected options {', '.join(kwargs)}: no backend takes any")
    check_type("auto_optim: optimizer", optimizer, Optimizer, "a torch.optim.Optimizer")
    for group in optimizer.param_groups:
        if any(_replaced.get(id(parameter)) is parameter for parameter in group["params"]):
            raise ValueError(
                "auto_optim: a parameter of the optimizer is no more the model's: sharding makes "
                "them anew; create the optimizer after auto_model"
            )
    if backend() == "xla":
        from ._xla import prepare_optimizer

        prepare_optimizer(optimizer)
    return optimizer


def no_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Let backward passes add to the gradients without exchanging them between processes.

    For gradient accumulation: the exchange, which costs most, is due in the last pass only; that
    one brings together what the passes before have added. The forward pass must be inside as well.

    Args:
        model: What :func:`auto_model` returned; nothing happens where it is not wrapped.

    Example:
        >>> model = auto_model(nn.Linear(2, 1))
        >>> with no_sync(model):
        ...     model(torch.ones(1, 2)).sum().backward()
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> model.weight.grad
        tensor([[2., 2.]])
    """
    if callable(pause := getattr(model, "no_sync", None)):  # DistributedDataParallel's
        return cast("AbstractContextManager[None]", pause())
    if callable(switch := getattr(model, "set_requires_gradient_sync", None)):  # fully_shard's
        return _switched_off(switch)
    return nullcontext()


@contextmanager
def _switched_off(switch: Callable[[bool], None]) -> Iterator[None]:
    switch(False)
    try:
        yield
    finally:
        switch(True)


def _on_xla(
    model: nn.Module, sync_bn: bool, wrap: str, options: dict[str, Any] | None
) -> nn.Module:
    for name, given in (("wrap='fsdp'", wrap == "fsdp"), ("compile", options is not None)):
        if given:
            raise ValueError(
                f"{name}: not with the backend 'xla', which compiles all that it runs and keeps "
                "the whole model on each device"
            )
    from ._xla import prepare_model

    return prepare_model(model, sync_bn)


def _options_of_compile(given: object) -> dict[str, Any] | None:
    """The options of ``torch.compile``; None where it is not wanted."""
    if not isinstance(given, Mapping):
        words = "True, False, or a mapping of torch.compile's options, as {'backend': 'eager'}"
        check_type("auto_model: compile", given, bool, words)
        return {} if given else None
    check_options("auto_model: compile", torch.compile, given, taken=("model",))
    return dict(given)


def _check_options_of_wrap(wrap: str, given: Mapping[str, Any]) -> None:
    if not given:
        return
    if wrap == "ddp":
        check_options("auto_model", DistributedDataParallel, given, taken=("module",))
        return
    from torch.distributed.fsdp import fully_shard  # takes a second

    check_options("auto_model: wrap='fsdp'", fully_shard, given, taken=("module",))


def _check_shard(shard: object) -> None:
    one = isinstance(shard, type)
    kinds = shard if isinstance(shard, Collection) and not isinstance(shard, str) else None
    if one or (kinds is None and not callable(shard)):
        hint = f"; did you mean [{shard.__name__}]?" if isinstance(shard, type) else ""
        raise TypeError(
            f"auto_model: shard={shard!r}: expected classes of modules, as [Block], or a function "
            f"(name, module) -> bool{hint}"
        )
    for kind in kinds or ():
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"auto_model: shard: {kind!r}: expected a class of modules, as [Block]")


def _units(model: nn.Module, shard: Shard) -> list[nn.Module]:
    """The submodules that are sharded by themselves, inner ones first, as fully_shard wants."""
    if callable(shard):
        chosen = [module for name, module in model.named_modules() if name and shard(name, module)]
    else:
        kinds = tuple(shard)
        chosen = [module for module in model.modules() if isinstance(module, kinds)]
        chosen = [module for module in chosen if module is not model]
    if shard and not chosen:
        raise ValueError(f"shard={shard!r}: matches no submodule of {type(model).__name__}")
    return chosen[::-1]


def _sharded(
    model: nn.Module,
    units: list[nn.Module],
    options: dict[str, Any] | None,
    kwargs: dict[str, Any],
) -> nn.Module:
    # Imported where they are used: they take a second.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if "mesh" not in kwargs:
        kwargs = {"mesh": init_device_mesh(device().type, (get_world_size(),))} | kwargs
    if options is not None:
        # Beneath the hooks that gather the parameters, which can't be compiled; and the names of
        # the parameters stay, as they would not with a module around. No copy of the model can
        # go on calling this one's method: fully_shard lets nobody copy it.
        for module in units or [model]:
            module.forward = torch.compile(module.forward, **options)
    whole = list(model.parameters())
    for module in [*units, model]:
        fully_shard(module, **kwargs)
    note_wrapped(model)
    _replaced.update({id(parameter): parameter for parameter in whole})
    return model
