"""Is a request to a server that nobody registered MCP? Lenient on purpose.

``classify`` refuses what two readers could read differently; here the same input must be *seen*, or a
byte order mark would hide an MCP server from ``unknown_server``. So every reading that some server was
measured to accept counts: other encodings, compression, both of them in name only, duplicate names,
batches, any content type.
Never decisive: the path, the content type, the user agent.

Not MCP: LSP, A2A, Ethereum and other JSON-RPC, the APIs of model providers. Where they share a method name
with MCP (``initialize``, ``ping``, ``tasks/*``), a second sign is asked for.

What stays unseen here, and is left to the answer (``recognise_answer``): a body in an encoding that we
cannot decode (br, zstd) without any other sign, words spelled with escapes in a body longer than
PARSE_LIMIT, and what a compressed body holds beyond PARSE_LIMIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callerid.mcp import lenient
from callerid.mcp.lenient import PARSE_LIMIT, Pairs, decompress, may_be_json, opens_json, readings, texts_of
from callerid.mcp.methods import METHODS
from callerid.mcp.prefix import completed
from callerid.mcp.recognise_answer import looks_like_mcp_response
from callerid.mcp.strictjson import fold

__all__ = ("looks_like_mcp_request", "looks_like_mcp_response", "may_be_message", "may_get_rpc_answer")

_SHARED = frozenset({"initialize", "ping"})
_OWN_METHODS = frozenset(
    fold(name)
    for name in METHODS
    if name not in _SHARED and not name.startswith(("tasks/", "notifications/tasks"))
)
_SHARED_METHODS = _SHARED | frozenset(fold(name) for name in METHODS if name.startswith("tasks/"))
_META_PREFIX = "io.modelcontextprotocol/"
_ENVELOPE = frozenset({"jsonrpc", "id", "method", "params"})
_NEIGHBOURS = ("processid", "rooturi", "rootpath", "id", "historylength")
"""Members of params by which a language server's ``initialize`` and an A2A task are known."""
_RPC_WORDS = (b"jsonrpc", b'"method"', *(b"\\u00%d" % digit for digit in (4, 5, 6, 7)))
"""What JSON-RPC has in it; the last four are letters in disguise, as no writer of JSON escapes them."""
_BODILESS = ("GET", "HEAD", "OPTIONS")


def looks_like_mcp_request(http_method: str, headers: Sequence[tuple[str, str]], body: bytes) -> bool:
    """Whether a request is MCP, by its decisive headers or by its body.

    Cheap for what is plainly something else: the first character that is not space decides.

    Args:
        http_method: as sent; on GET the version header alone proves nothing, for SDKs send it with
            OAuth discovery as well.
        headers: name and value of every header line.
        body: as received; encoded bodies are decoded up to PARSE_LIMIT.
    """
    accept, encodings, charset, version = "", "", "", False
    for name, value in headers:
        match name.lower():
            case "mcp-session-id" | "mcp-method":
                return True
            case "mcp-protocol-version":
                version = version or _is_date(value.strip())
            case "sec-websocket-protocol":
                if "mcp" in [word.strip() for word in value.lower().split(",")]:
                    return True
            case "accept":
                accept += value.lower()
            case "content-encoding":
                encodings += f",{value.lower()}"
            case "content-type":
                charset = value.lower().partition("charset=")[2].split(";")[0].strip(' \t"')
    streams = "text/event-stream" in accept
    if version and (streams or http_method not in _BODILESS):
        return True
    if not body:
        return False
    both = streams and "application/json" in accept
    plain = decompress(body, encodings)
    if plain is None:
        return both or _holds_mcp(body, charset, both)
    if plain is not body and _holds_mcp(plain, charset, both, cut=len(plain) >= PARSE_LIMIT):
        return True
    return _holds_mcp(body, charset, both)


def may_be_message(headers: Sequence[tuple[str, str]], start: bytes) -> bool:
    """Whether a body that begins like this may still turn out to be MCP by what is in it.

    Args:
        headers: name and value of every header line.
        start: the first bytes of the body, as received.
    """
    # An archive is no message: compression that no header tells of is undone by no server.
    return any(map(opens_json, readings(start, lenient.encodings_of(headers))))


def may_get_rpc_answer(http_method: str, headers: Sequence[tuple[str, str]], body: bytes) -> bool:
    """Whether the answer to a request that was not recognised is worth a look: it might be JSON-RPC.

    False for nearly all traffic, by a search for two words. What we cannot read may hold anything.
    """
    if http_method in _BODILESS or not body:
        return False
    plain = decompress(body, lenient.encodings_of(headers))
    if plain is None:
        return True
    return _may_be_rpc(plain) or (plain is not body and opens_json(body[:256]) and _may_be_rpc(body))


def _may_be_rpc(plain: bytes) -> bool:
    start = plain[:256].lstrip(lenient.SPACE_BYTES)[:1]
    if start not in (b"{", b"["):
        return may_be_json(plain[:256])  # UTF-7, or a further layer of compression
    if b"\0" in plain[:8]:
        return True
    lower = plain.lower()
    return any(word in lower for word in _RPC_WORDS)


def _holds_mcp(plain: bytes, charset: str, both_accepted: bool, *, cut: bool = False) -> bool:
    """Whether one reading of a body, its content encodings undone or ignored, is a message of MCP."""
    if not opens_json(plain[:256]):
        return False
    long = cut or len(plain) > PARSE_LIMIT
    if long and not _mentions_mcp(plain.decode("utf-8", "replace").lower()):
        return False  # long bodies are parsed for a reason only: those of model APIs hold whole conversations
    return any(_names_mcp(text, both_accepted, cut=cut) for text in texts_of(plain, charset))


def _is_date(value: str) -> bool:
    return (
        len(value) == 10
        and value.isascii()
        and value[4] == value[7] == "-"
        and value.replace("-", "").isdigit()
    )


def _names_mcp(text: str, both_accepted: bool, *, cut: bool = False) -> bool:
    """Whether a JSON text has a message of MCP. Every copy of a duplicate name counts, in any case.

    ``cut``: the text goes on where we stopped to read. Then its beginning says whose it is.
    """
    if text[:1] not in ("{", "["):
        return False
    lower = text.lower()
    if "\\u" not in text and "method" not in lower and _META_PREFIX not in lower:
        return False
    try:
        value = lenient.first_value(text)
    except RecursionError:
        return _mentions_mcp(lower)
    except ValueError:
        return _begins_mcp(text, lower, both_accepted) if cut else _mentions_mcp(lower)
    return any(_is_message(member, both_accepted) for member in lenient.members_of(value))


def _begins_mcp(text: str, lower: str, both_accepted: bool) -> bool:
    """The same for a text that was cut off; undecided, by its words."""
    try:
        members = lenient.members_of(lenient.first_value(completed(text)))
    except (ValueError, RecursionError):
        return _mentions_mcp(lower)
    if any(_is_message(member, both_accepted) for member in members):
        return True
    return bool(members) and members[-1].names() <= _ENVELOPE - {"method"} and _mentions_mcp(lower)


def _mentions_mcp(lower: str) -> bool:
    """The same for text that does not parse, by the words that no other protocol has."""
    lower = lower.replace("\\/", "/")
    if "jsonrpc" not in lower:
        return False
    return _META_PREFIX in lower or any(f'"{method}"' in lower for method in _OWN_METHODS)


def _is_message(message: Pairs, both_accepted: bool) -> bool:
    params = [value for value in message.all("params") if isinstance(value, Pairs)]
    if any(_has_mcp_meta(value) for value in params):
        return True
    asked = {fold(value.strip()) for value in message.all("method") if isinstance(value, str)}
    if not message.has("jsonrpc"):
        return "tools/call" in asked and any(value.has("name") for value in params)
    if asked & _OWN_METHODS:
        return True
    if not asked & _SHARED_METHODS:
        return False
    if any(_is_shaped(value) for value in params):
        return True
    return both_accepted and not any(value.has(name) for value in params for name in _NEIGHBOURS)


def _is_shaped(params: Pairs) -> bool:
    """By what MCP has in ``initialize`` and in ``tasks/*``, and its neighbours have not."""
    if params.has("taskid"):
        return True
    return params.has("clientinfo") and any(isinstance(value, str) for value in params.all("protocolversion"))


def _has_mcp_meta(holder: Pairs) -> bool:
    return any(_is_mcp_name(name) for meta in holder.all("_meta") for name in _member_names(meta))


def _is_mcp_name(name: str) -> bool:
    return fold(name).startswith(_META_PREFIX)


def _member_names(value: Any) -> list[str]:
    return [name for name, _ in value] if isinstance(value, Pairs) else []
