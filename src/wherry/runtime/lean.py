"""Spare a short-lived command the import of `inspect`, 20 of the 35 ms that its other imports take.

`dataclasses` imports it and until Python 3.12 uses it only for classes that have no docstring; ours have one. So a
stand-in takes its place and loads the real module when anything of it is asked for.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_NAME = "inspect"


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        import inspect

        return getattr(inspect, name)


def defer_inspect() -> None:
    """Put the stand-in where `import inspect` finds it; without effect when the module is loaded already."""
    sys.modules.setdefault(_NAME, _Deferred(_NAME))
