"""A body becomes a payload: size, content type, encoding, JSON, then the handler's annotation.

Nothing here knows a bus; the loop uses it for coroutines too, and `penstock.testing` for tests. A fault is a
`PayloadError` whose reason a person can act on; another run would end the same.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any, Final, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from penstock.app.handlers import AnyHandler
from penstock.errors import HandlerError, PayloadError

#: Content types that leave the decision to the annotation: nothing, and "some bytes".
_UNSPOKEN: Final = frozenset({"", "application/octet-stream"})
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
#: Celery and kombu write the charset where the encoding belongs.
_PLAIN_ENCODINGS: Final = frozenset({"", "identity", *_CHARSETS})
_MAX_ERRORS_SHOWN: Final = 5
#: Characters of a name from the body, which may be as long as the body.
_MAX_NAME_SHOWN: Final = 100
#: zlib's wbits for "gzip or zlib header, whichever is there".
_GZIP_OR_ZLIB: Final = 47


class Decoder:
    """Decodes bodies for one handler. Raises `HandlerError` when made for an annotation pydantic cannot read."""

    def __init__(self, handler: AnyHandler, *, body_bytes: int) -> None:
        self._handler = handler
        self._body_bytes = body_bytes
        self._is_raw = handler.is_raw
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(handler.payload_type)
        except Exception as error:
            msg = f"handler {handler.name}: pydantic cannot validate its payload's type {handler.payload_type!r}: {error}"
            raise HandlerError(msg) from error

    def decode(self, body: bytes, content_type: str | None, content_encoding: str | None) -> Any:
        """The payload, as the handler annotated it. Raises `PayloadError` with the reason for the dead letter."""
        if len(body) > self._body_bytes:
            raise PayloadError(too_long(len(body), self._body_bytes))
        body = unpacked(body, content_encoding, self._body_bytes)
        if self._is_raw:
            return self._raw(body, content_type)
        _check_content_type(content_type, self._handler)
        return self._json(body)

    def _raw(self, body: bytes, content_type: str | None) -> bytes | str:
        if self._handler.payload_type is not str:
            return body
        _check_charset(content_type)
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            msg = f"the body is not UTF-8 text: {error}; handler {self._handler.name} takes str"
            raise PayloadError(msg) from error

    def _json(self, body: bytes) -> Any:
        try:
            _refuse_loose(body.decode())
            return self._adapter.validate_json(body, strict=True)
        except ValidationError as error:
            raise PayloadError(_in_words(error, self._handler)) from error
        except UnicodeDecodeError as error:
            msg = f"the body is not UTF-8: {error}"
            raise PayloadError(msg) from error
        except RecursionError as error:
            msg = "the body is not usable JSON: nested too deeply"
            raise PayloadError(msg) from error
        except ValueError as error:
            msg = f"the body is not valid JSON: {error}"
            raise PayloadError(msg) from error


def check_json(text: str) -> None:
    """Read a text as strictly as every handler that takes JSON does.

    Raises `ValueError` with the reason, or `RecursionError`, for what none of them would take.
    """
    _refuse_loose(text)
    from_json(text.encode())


def too_long(size_bytes: int, limit_bytes: int) -> str:
    """The reason for a body beyond the limit."""
    return f"the body has {size_bytes} bytes, limits.body_bytes is {limit_bytes}; it was not read"


def _check_content_type(content_type: str | None, handler: AnyHandler) -> None:
    if content_type is None or content_type == "application/json":
        return
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _UNSPOKEN and kind not in ("application/json", "text/json") and not kind.endswith("+json"):
        msg = (
            f"content type {content_type!r} is not read: handler {handler.name} takes JSON "
            "(application/json, or none); annotate its payload bytes to take bodies as they are"
        )
        raise PayloadError(msg)
    _check_charset(content_type)


def _check_charset(content_type: str | None) -> None:
    for parameter in (content_type or "").lower().split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in _CHARSETS:
            msg = f"charset in content type {content_type!r} is not read; text is UTF-8 here"
            raise PayloadError(msg)


def unpacked(body: bytes, encoding: str | None, limit_bytes: int) -> bytes:
    """The body without its content encoding; never more than the limit is unpacked. Raises `PayloadError`."""
    if encoding is None or encoding.lower() in _PLAIN_ENCODINGS:
        return body
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        msg = f"content encoding {encoding!r} is not read; gzip, deflate or none"
        raise PayloadError(msg)
    unpacker = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
    try:
        unpacked = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        msg = f"the body is not {encoding}: {error}"
        raise PayloadError(msg) from error
    if len(unpacked) > limit_bytes:
        msg = f"the body unpacks to more than limits.body_bytes = {limit_bytes}; it was not read"
        raise PayloadError(msg)
    if not unpacker.eof:
        msg = f"the {encoding} body is cut off after {len(unpacked)} unpacked bytes"
        raise PayloadError(msg)
    if unpacker.unused_data:
        msg = f"behind the end of the {encoding} body are {len(unpacker.unused_data)} more bytes"
        raise PayloadError(msg)
    return unpacked


def _refuse_loose(text: str) -> None:
    """What pydantic's parser lets pass is refused first: duplicate keys, NaN, 1e999, numbers of 5,000 digits."""
    if text.startswith("\ufeff"):
        msg = "it begins with a byte order mark (BOM)"
        raise ValueError(msg)
    _STRICT.decode(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                msg = f"key {_shown(name)!r} stands twice in one object"
                raise ValueError(msg)
            seen.add(name)
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        msg = f"the number {_shown(digits)} is too large"
        raise ValueError(msg)
    return number


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


#: Made once: `json.loads` with hooks makes one for each text, which takes as long as reading a small one.
_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
)


def _in_words(error: ValidationError, handler: AnyHandler) -> str:
    faults = error.errors(include_url=False, include_input=False)
    shown = [
        f"{'.'.join(_shown(str(part)) for part in fault['loc']) or 'body'}: {fault['msg']}"
        for fault in faults[:_MAX_ERRORS_SHOWN]
    ]
    more = f"; and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""
    return f"the body is not what handler {handler.name} takes: {'; '.join(shown)}{more}"


def _shown(name: str) -> str:
    return name if len(name) <= _MAX_NAME_SHOWN else f"{name[:_MAX_NAME_SHOWN]}…"
