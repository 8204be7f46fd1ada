"""The user's own code: a function that a workload names as `module:function`, from a file next to the workload."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.errors import ModelError


def is_own(name: str) -> bool:
    """Whether the name means the user's own code, rather than something that is built in."""
    return ":" in name


def find_function(name: str, role: str) -> Callable[..., Any]:
    """The function `module:function`, which is imported; messages call it a `role`.

    Raises:
        ModelError: there is no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{role} {name!r}: expected an importable module:function, found {error}") from None
    if not callable(found):
        raise ModelError(f"{role} {name!r}: expected a function, found {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def asked_for(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments `offered` that the function has a parameter for."""
    parameters = inspect.signature(function).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in offered.items() if takes_all or name in parameters}
