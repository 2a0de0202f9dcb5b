"""Any model of timm or torchvision by its name, with a classifier for the data set's classes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from torch import Tensor, nn

from cookfire import distributed as idist
from cookfire.handlers import recipe

from .config import Config

TORCHVISION = "torchvision."
NEAR = 6  # names that are offered for a wrong one


def create_model(config: Config, classes: int, *, trained: bool = False) -> nn.Module:
    """Return the profile's net, its weights channels last, what ``backbone_lr: 0`` freezes frozen.

    Args:
        config: says which.
        classes: outputs of the classifier.
        trained: weights will be loaded into it, so that none need to be read or downloaded.

    Raises:
        RecipeError: there is no such model, or no such option of it, or its weights can't be had
            or are of another model.
    """
    begin = None if trained else config.weights
    from_hub = begin == "pretrained"
    if config.model.startswith(TORCHVISION):
        net = _from_torchvision(config, classes, pretrained=from_hub)
    else:
        net = _from_timm(config, classes, pretrained=from_hub)
    if begin is not None and not from_hub:
        load_file(net, Path(begin).expanduser())
    if config.backbone_lr == 0:
        classifier = head_parameters(net)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in classifier)
    return net.to(memory_format=torch.channels_last)


def head(net: nn.Module) -> tuple[str, nn.Module]:
    """Return the classifier, the last layer with weights, and its name."""
    layers = [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not layers:
        raise recipe.RecipeError(f"{type(net).__name__}: no classifier found in it")
    return layers[-1]


def head_parameters(net: nn.Module) -> set[str]:
    """Return the names of the classifier's parameters."""
    name, module = head(net)
    return {f"{name}.{own}" for own, _ in module.named_parameters()}


def set_training(config: Config, model: nn.Module, net: nn.Module) -> None:
    """Put a model into training mode, but the normalisations of a frozen backbone.

    Args:
        config: says whether it is frozen.
        model: what is called.
        net: the net in it.
    """
    model.train()
    if config.backbone_lr == 0:
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


@torch.no_grad()
def share_buffers(net: nn.Module) -> None:
    """Give all processes the first one's statistics of the normalisations: those that are saved."""
    for buffer in net.buffers():
        buffer.copy_(idist.broadcast(buffer))


def load_file(net: nn.Module, path: Path) -> None:
    """Load weights of the same model, but for a classifier of other classes, which stays as it is.

    Args:
        net: gets them.
        path: .safetensors, or a dictionary of tensors by ``torch.save``.

    Raises:
        RecipeError: there is no such file, or it is damaged, or of another model.
    """
    if not path.is_file():
        raise recipe.RecipeError(f"weights: {path}: no such file (nor the word pretrained)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load

            state: dict[str, Tensor] = load(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = cast("dict[str, Tensor]", state.get("state_dict", state))
    except Exception as error:  # whatever a damaged file leads to
        raise recipe.RecipeError(f"weights: {path}: damaged, or no weights ({error})") from error
    ours = net.state_dict()
    for name in head_parameters(net):
        if name in state and state[name].shape != ours[name].shape:
            state[name] = ours[name]
    missing = sorted(name for name in ours if name not in state)
    unexpected = sorted(name for name in state if name not in ours)
    misfits = [name for name in ours if name in state and ours[name].shape != state[name].shape]
    for what, names in (("lacks", missing), ("has", unexpected), ("misfits in", misfits)):
        if names:
            raise recipe.RecipeError(
                f"weights: {path}: not of this model: {what} {', '.join(names[:3])}"
                f"{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            )
    net.load_state_dict(state)


def _from_timm(config: Config, classes: int, *, pretrained: bool) -> nn.Module:
    name = config.model
    if not timm.is_model(name):
        known = timm.list_models() + _torchvision_names()
        raise recipe.RecipeError(f"model: {name!r} is no model of timm's{_near(name, known)}")
    try:
        options = cast("dict[str, Any]", config.options)
        net: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=classes, **options
        )
    except TypeError as error:
        raise recipe.RecipeError(f"options: {name} does not take them: {error}") from error
    except Exception as error:  # of a hub: no network, no such weights
        if not pretrained:
            raise
        raise _not_had(name, error) from error
    return net


def _from_torchvision(config: Config, classes: int, *, pretrained: bool) -> nn.Module:
    name = config.model.removeprefix(TORCHVISION)
    if config.model not in _torchvision_names():
        near = _near(config.model, _torchvision_names())
        raise recipe.RecipeError(f"model: {config.model!r} is no classifier of torchvision's{near}")
    try:
        net = torchvision.models.get_model(
            name, weights=None, num_classes=classes, **config.options
        )
    except TypeError as error:
        raise recipe.RecipeError(f"options: {name} does not take them: {error}") from error
    if pretrained:
        try:
            weights = torchvision.models.get_model_weights(name).DEFAULT
            state = weights.get_state_dict(check_hash=True)
        except Exception as error:  # no network, no such weights
            raise _not_had(config.model, error) from error
        ours = net.state_dict()
        others = head_parameters(net) if len(weights.meta["categories"]) != classes else set()
        net.load_state_dict({**state, **{name: ours[name] for name in others}})
    return cast("nn.Module", net)


def _torchvision_names() -> list[str]:
    """Return its classifiers; it has nets for other tasks too."""
    return [TORCHVISION + name for name in torchvision.models.list_models(torchvision.models)]


def _not_had(name: str, error: Exception) -> recipe.RecipeError:
    return recipe.RecipeError(
        f"weights: those of {name} can't be had ({type(error).__name__}: {error}); download them "
        "elsewhere and give the file's path"
    )


def _near(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=NEAR, cutoff=0.5)
    near += [other for other in known if name in other and other not in near]
    if not near:
        return f"; there are {len(known)}, see timm.list_models()"
    return f"; near it: {', '.join(near[:NEAR])}"
