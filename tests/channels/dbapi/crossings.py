"""What goes over a link, written down on its way."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.channels.dbapi.link import Link


class Crossings:
    """The methods called, and the most bytes of rows that one of them brought."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.methods: list[str] = []
        self.largest = 0
        call = Link.call

        def noted(link: Link, method: str, arguments: object, result: Any) -> Any:
            self.methods.append(method)
            answer = call(link, method, arguments, result)
            chunk = getattr(answer, "chunk", answer)
            pieces = getattr(chunk, "rows", ())
            self.largest = max(self.largest, sum(memoryview(piece).nbytes for piece in pieces))
            return answer

        monkeypatch.setattr(Link, "call", noted)
