"""What an object offers so that a checkpoint or an engine can look after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

__all__ = ["ResettableHandler", "Serializable", "Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """Anything with ``state_dict`` and ``load_state_dict``: a module, an optimizer, an engine."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is needed to continue from here."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Continue from what :meth:`state_dict` returned."""
        ...


class Serializable:
    """A stateful object that says which keys its state must have.

    Subclasses name them in ``_state_dict_all_req_keys`` (each must be there) and in
    ``_state_dict_one_of_opt_keys`` (groups of which exactly one key must be there), and call
    ``super().load_state_dict(state_dict)`` first to have them checked.

    Example:
        >>> class Counter(Serializable):
        ...     _state_dict_all_req_keys = ("count",)
        ...     count = 0
        ...     def state_dict(self):
        ...         return {"count": self.count}
        ...     def load_state_dict(self, state_dict):
        ...         super().load_state_dict(state_dict)
        ...         self.count = state_dict["count"]
        >>> Counter().load_state_dict({"counts": 3})
        Traceback (most recent call last):
            ...
        ValueError: Counter: the state lacks 'count'; it has 'counts'
    """

    _state_dict_all_req_keys: ClassVar[tuple[str, ...]] = ()
    _state_dict_one_of_opt_keys: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is needed to continue from here."""
        raise NotImplementedError(f"{type(self).__name__} must define state_dict")

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Check the keys of ``state_dict``.

        Raises:
            TypeError: ``state_dict`` is no mapping.
            ValueError: a required key is missing, or not exactly one of a group is there.
        """
        name = type(self).__name__
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{name}: the state must be a mapping, got {type(state_dict).__name__}")
        has = ", ".join(repr(key) for key in state_dict) or "no key"
        for key in self._state_dict_all_req_keys:
            if key not in state_dict:
                raise ValueError(f"{name}: the state lacks {key!r}; it has {has}")
        for group in self._state_dict_one_of_opt_keys:
            if sum(key in state_dict for key in group) != 1:
                raise ValueError(
                    f"{name}: the state must have exactly one of {', '.join(map(repr, group))}; "
                    f"it has {has}"
                )


class ResettableHandler(ABC):
    """A handler with state that can go back to its beginning, so that it serves a second run."""

    @abstractmethod
    def reset(self, *args: Any, **kwargs: Any) -> None:
        """Forget everything since construction."""
