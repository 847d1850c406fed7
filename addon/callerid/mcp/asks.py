"""What a server asks of the client, wherever it stands: as a request, inside a result, inside an error.

Sources: ServerRequest of 2024-11-05 to 2025-11-25; ``inputRequests`` of 2026-07-28 (basic/patterns/mrtr)
and of the tasks extension; error -32042 of 2025-11-25 (client/elicitation, URL mode). Server text is not
trusted: what is malformed in one of these places is an ask as well, one that no rule allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from callerid.mcp.methods import name_set, variant
from callerid.mcp.urls import url_host
from callerid.model import Reason, RpcId

MALFORMED = "malformed"
"""The method of an ask that cannot be read: no rule can name it, so it is refused."""

URL_REQUIRED = -32042
MAX_ASKS = 64
"""The most that one message may ask; a message that asks more is one malformed ask, and one row."""

_ELICITATION = "elicitation/create"
_TASK_NEWS = "notifications/tasks"
_ENVELOPE = name_set("jsonrpc", "id", "method", "params", "result", "error")
_HOLDER = name_set("inputRequests")
_REQUEST = name_set("method", "params")
_ERROR = name_set("code", "data")
_DATA = name_set("elicitations")
_PARAMS = name_set("mode", "url", "url_host", "requestedSchema")
_NESTING = 3
_SAFE_INTEGER = 2**53


class Place(StrEnum):
    """Where an ask stands: a JSON-RPC request, a map of ``inputRequests``, the data of error -32042."""

    REQUEST = "request"
    INPUT_REQUEST = "input_request"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One thing that a server asks.

    ``arguments`` are its params without ``_meta``; those of ``elicitation/create`` always have ``mode``,
    and have ``url_host`` exactly if every browser goes to that host (``urls.url_host``). ``key`` is the
    JSON-RPC id of a request, the member name in ``inputRequests``, or the place (from "0") in the
    ``elicitations`` of an error; "" if what is malformed has none.
    """

    method: str
    arguments: Mapping[str, Any]
    key: RpcId
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRefusal:
    """Why what a message asks is not given out: reason, row, rule and its words, as of a ``Decision``.

    ``drop``: a request is not even replaced, for an answer under its id would be that to another one.
    """

    reason: Reason
    event_id: str
    rule: str | None
    say: str | None
    hidden: bool
    drop: bool = False


def asks_of(message: Mapping[str, Any]) -> tuple[Ask, ...]:
    """All that one JSON-RPC message from a server asks of the client. Total.

    A message that is more than one thing (``method`` beside ``result``) asks all of it, since clients
    differ about what it is. So do members that differ from MCP's in case only.
    """
    asks: list[Ask] = []
    for ask in _of_message(message):
        asks.append(ask)
        if len(asks) > MAX_ASKS:
            return (_malformed("", ask.place),)
    return tuple(asks)


def answered_as(value: Any) -> tuple[str, ...]:
    """The methods that an answer could be meant for, by its shape; () if it looks like none of them."""
    if not isinstance(value, Mapping):
        return ()
    found = []
    if "action" in value:
        found.append(_ELICITATION)
    if "roots" in value:
        found.append("roots/list")
    # An elicitation's answer has content too; a sampling answer must have role and model.
    if "role" in value or "model" in value or ("content" in value and "action" not in value):
        found.append("sampling/createMessage")
    return tuple(found)


def _of_message(message: Mapping[str, Any]) -> Iterator[Ask]:
    if variant(message, _ENVELOPE) is not None:
        yield _malformed(_key(message.get("id")), Place.REQUEST)
        return
    if "method" in message:
        yield from _of_request(message)
    if "result" in message:
        yield from _of_holder(message["result"], _NESTING)
    if "error" in message:
        yield from _of_error(message["error"])
    method = message.get("method")
    if isinstance(method, str) and method.startswith(_TASK_NEWS):
        yield from _of_holder(message.get("params"), _NESTING)


def _of_request(message: Mapping[str, Any]) -> Iterator[Ask]:
    """A request has an id. One that is null asks too, unless it is a notification that a server wrote so."""
    method, rpc_id = message["method"], message.get("id")
    if not isinstance(method, str):
        yield _malformed(_key(rpc_id), Place.REQUEST)
    elif type(rpc_id) is str or type(rpc_id) is int:
        yield _ask(message, rpc_id, Place.REQUEST)
    elif "id" in message and not (rpc_id is None and method.startswith("notifications/")):
        yield _malformed(_key(rpc_id), Place.REQUEST)


def _of_holder(holder: Any, depth: int) -> Iterator[Ask]:
    """What may carry ``inputRequests`` or an error: a result, params of a task's news, a task in them."""
    if not isinstance(holder, Mapping):
        return
    wanted = holder.get("inputRequests")
    if variant(holder, _HOLDER) is not None:
        yield _malformed("", Place.INPUT_REQUEST)
    elif isinstance(wanted, Mapping):
        for key, entry in wanted.items():
            yield _ask(entry, key, Place.INPUT_REQUEST)
    elif wanted is not None:
        yield _malformed("", Place.INPUT_REQUEST)
    yield from _of_error(holder.get("error"))
    if depth > 0:
        yield from _of_holder(holder.get("task"), depth - 1)
        yield from _of_holder(holder.get("result"), depth - 1)


def _of_error(error: Any) -> Iterator[Ask]:
    if not isinstance(error, Mapping):
        return
    if variant(error, _ERROR) is not None:
        yield _malformed("", Place.ERROR)
        return
    if _number(error.get("code")) != URL_REQUIRED:
        return
    data = error.get("data")
    wanted = data.get("elicitations") if isinstance(data, Mapping) else None
    if not isinstance(wanted, list) or (isinstance(data, Mapping) and variant(data, _DATA) is not None):
        yield _malformed("", Place.ERROR)
        return
    for place, entry in enumerate(wanted):
        yield _elicitation(entry, str(place), Place.ERROR, "url")


def _ask(request: Any, key: RpcId, place: Place) -> Ask:
    """A request object: a message of its own, or an entry of ``inputRequests``."""
    if not isinstance(request, Mapping) or not isinstance(request.get("method"), str):
        return _malformed(key, place)
    params = request.get("params")
    if variant(request, _REQUEST) is not None:
        return _malformed(key, place)
    method = request["method"]
    if method == _ELICITATION:
        return _elicitation({} if params is None else params, key, place, None)
    if params is None:
        return Ask(method=method, arguments={}, key=key, place=place)
    if not isinstance(params, Mapping):
        return _malformed(key, place)
    return Ask(method=method, arguments=_without_meta(params), key=key, place=place)


def _elicitation(params: Any, key: RpcId, place: Place, default: str | None) -> Ask:
    """``default`` is the mode of params that name none; without it they are a form, unless they have a URL.

    Clients differ about a URL without a mode: some take it for URL mode, some for a form.
    """
    if not isinstance(params, Mapping) or variant(params, _PARAMS) is not None:
        return _malformed(key, place)
    mode = params.get("mode")
    if mode is None:
        if default is None and "url" in params:
            return _malformed(key, place)
        mode = default or "form"
    if not isinstance(mode, str):
        return _malformed(key, place)
    arguments = {**_without_meta(params), "mode": mode}
    arguments.pop("url_host", None)
    host = url_host(params.get("url")) if mode == "url" else None
    if host is not None:
        arguments["url_host"] = host
    return Ask(method=_ELICITATION, arguments=arguments, key=key, place=place)


def _malformed(key: RpcId, place: Place) -> Ask:
    return Ask(method=MALFORMED, arguments={}, key=key, place=place)


def _number(code: Any) -> Any:
    """An error's code as the most lenient client reads it: -32042.0 and "-32_042" are numbers to some."""
    if not isinstance(code, str):
        return code
    try:
        return float(code)
    except ValueError:
        return code


def _key(rpc_id: Any) -> RpcId:
    """An id as the client will repeat it: JavaScript gives 5.0 back as 5."""
    if type(rpc_id) is str or type(rpc_id) is int:
        return rpc_id
    if type(rpc_id) is float and abs(rpc_id) < _SAFE_INTEGER and rpc_id.is_integer():
        return int(rpc_id)
    return ""


def _without_meta(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "_meta"}
