"""An application that is no module's attribute, under an address all the same."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from penstock.app.application import App

_numbers: Final = itertools.count(1)


@contextmanager
def importable(app: App | str) -> Iterator[str]:
    """An address under which the application can be loaded in this process."""
    if isinstance(app, str):
        yield app
        return
    module = ModuleType(f"penstock_application_under_test_{next(_numbers)}")
    vars(module)["app"] = app
    sys.modules[module.__name__] = module
    try:
        yield f"{module.__name__}:app"
    finally:
        del sys.modules[module.__name__]
