"""torch without its compiler, until somebody compiles: half of the time that a process spends on importing a network.

torchvision, timm, and the optimisers of torch ask the compiler (``torch._dynamo``, which brings sympy and most of torch
along) for nothing but "is something being compiled?" and "leave this function out". Without it the answers are known:
no, and the function as it is. ``defer_compiler`` puts a module there that gives these answers, and that becomes the
compiler as soon as anything else of it is asked for.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAME, _UTILS = "torch._dynamo", "torch._dynamo.utils"


def defer_compiler() -> None:
    """From here on ``import torch._dynamo`` costs nothing, in this process. Does nothing where it is imported."""
    if _NAME not in sys.modules:
        utils = _Deferred(_UTILS, {"is_compile_supported": _is_compile_supported})
        known = {"graph_break": _graph_break, "is_compiling": _is_compiling, "disable": _disable, "utils": utils}
        sys.modules |= {_NAME: _Deferred(_NAME, known), _UTILS: utils}


class _Deferred(ModuleType):
    """Knows a few names of a module, and is otherwise that module, which it imports."""

    def __init__(self, name: str, known: dict[str, object]) -> None:
        super().__init__(name, __doc__)
        self.__dict__["_known"] = known

    def __getattr__(self, name: str) -> Any:
        if not _loaded() and name in self._known:
            return self._known[name]
        package = self.__name__ == _NAME
        if name.startswith("__") and not (package and name == "__path__"):  # whoever walks through all modules asks
            raise AttributeError(f"{self.__name__} is not imported yet and has no {name}")
        return getattr(_load(self.__name__), name)


def _loaded() -> bool:
    return not isinstance(sys.modules.get(_NAME), _Deferred)


def _load(name: str) -> ModuleType:
    """The real module; from now on everybody gets it."""
    if not _loaded():
        for stand_in in (_NAME, _UTILS):
            sys.modules.pop(stand_in, None)
    return importlib.import_module(name)


def _is_compiling() -> bool:
    return False


def _graph_break(msg: str = "") -> None:
    """Has an effect only on what is compiled."""


def _is_compile_supported(device_type: Any) -> Any:
    return _load(_UTILS).is_compile_supported(device_type)


def _disable(fn: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """``fn`` as it is until the compiler is there, and left out by the compiler from then on."""
    if fn is None:
        return functools.partial(_disable, recursive=recursive, **options)

    @functools.cache
    def left_out() -> Callable[..., Any]:
        return _load(_NAME).disable(fn, recursive, **options)

    @functools.wraps(fn)
    def as_it_is(*args: Any, **kwargs: Any) -> Any:
        return left_out()(*args, **kwargs) if _loaded() else fn(*args, **kwargs)

    return as_it_is
