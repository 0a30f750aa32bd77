"""An application's module that cannot be imported here."""

from __future__ import annotations

import os

URL = os.environ["NOBODY_SET_THIS"]
