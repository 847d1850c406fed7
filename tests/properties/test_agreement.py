"""Parser agreement: what we say of a message is what servers read in the bytes that we forward, or we refuse.

The official SDK reads a body in three ways (``pydantic_core.from_json`` and then the envelope, the envelope
at once, ``json.loads``), and Node reads numbers as doubles. The checks are those of the fuzz targets.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.identity import tokens
from callerid.mcp import strictjson
from callerid.mcp.classify import classify
from callerid.mcp.recognise import looks_like_mcp_request, looks_like_mcp_response
from callerid.model import Exchange, Malformed
from callerid.policy.conditions import compile_condition
from callerid.policy.rulemodels import ConditionModel
from callerid.proxy.bodies import TokenScan
from tests.fuzz import fuzz_messages, fuzz_sse, readers
from tests.fuzz.mutations import recoded, spelled
from tests.fuzz.strategies import arguments, numbers, odd_scalars, odd_values, requests, responses

quick = settings(max_examples=100, deadline=None)
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}'
JSON = ("Content-Type", "application/json")


@settings(max_examples=500, deadline=None)
@given(fuzz_messages.cases())
def test_the_sdk_reads_the_message_that_we_read_or_we_refuse(case: bytes) -> None:
    fuzz_messages.check(case)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_message_that_was_meant_is_the_one_that_is_read(data: st.DataObject) -> None:
    """From the value to the bytes and back, for every spelling that is accepted."""
    tree = data.draw(requests() | responses)
    style = random.Random(data.draw(st.integers(0, 2**32)))
    raw = spelled(style, tree, style.randrange(16)).encode("utf-8", "surrogatepass")
    said = classify("POST", [JSON], raw)
    plain = classify("POST", [JSON], spelled(style, tree, 0).encode("utf-8", "surrogatepass"))
    if isinstance(said, Malformed) or isinstance(plain, Malformed):
        assert isinstance(plain, Malformed)
        assert isinstance(said, Malformed)
        return
    [ours], [same] = said.messages, plain.messages
    assert ours == same
    assert readers.same(dict(ours.arguments), dict(same.arguments))
    assert readers.same(strictjson.loads(said.body), strictjson.loads(plain.body))


@quick
@given(
    st.sampled_from(["POST", "GET", "DELETE", "PUT", "\ud800"]),
    st.lists(
        st.tuples(st.text(st.characters(), max_size=12), st.text(st.characters(), max_size=12)), max_size=4
    ),
    st.sampled_from([None, "mcp-method", "Mcp-Name", "MCP-Protocol-Version", "Content-Type", "Mcp-Param-A"]),
    st.sampled_from([CALL, b""]) | st.binary(max_size=80),
)
def test_any_headers_and_bytes_give_a_value(
    method: str, headers: list[tuple[str, str]], name: str | None, body: bytes
) -> None:
    more = [] if name is None else [(name, value) for _, value in headers]
    for sent in (headers, [JSON, *headers], [JSON, *more], more):
        said = classify(method, sent, body)
        looks_like_mcp_request(method, sent, body)
        looks_like_mcp_response(400, sent, body)
        if isinstance(said, Malformed):
            fuzz_messages.check_refused(said)


@quick
@given(requests(), st.integers(0, 2**32))
def test_another_encoding_is_refused_or_read_alike(tree: Any, chance: int) -> None:
    rng = random.Random(chance)
    raw = recoded(rng, spelled(rng, tree, 0).encode("utf-8", "surrogatepass"))
    said = classify("POST", [JSON], raw)
    if isinstance(said, Exchange):
        fuzz_messages.check_agreed(said, [JSON], raw)


@pytest.fixture(scope="module")
def node() -> Iterator[readers.Node]:
    with readers.node() as process:
        if process is None:
            pytest.skip("Node is not on the PATH: what JSON.parse reads is not compared")
        yield process


def agrees(process: readers.Node, raws: list[bytes]) -> None:
    """Node reads in our canonical bytes what we read in what was sent."""
    values, bodies = [], []
    for raw in raws:
        try:
            values.append(strictjson.loads(raw))
        except strictjson.JsonError:
            continue
        bodies.append(strictjson.dumps(values[-1]))
    assert process.read(bodies) == [readers.as_doubles(value) for value in values]


@settings(max_examples=300, deadline=None)
@given(st.lists(odd_scalars | numbers | odd_values, min_size=10, max_size=30), st.integers(0, 2**32))
def test_node_reads_the_values_that_we_read(node: readers.Node, drawn: list[Any], chance: int) -> None:
    rng = random.Random(chance)
    agrees(node, [spelled(rng, value, rng.randrange(16)).encode("utf-8", "surrogatepass") for value in drawn])


@quick
@given(st.lists(fuzz_messages.cases(), min_size=3, max_size=6))
def test_node_reads_the_messages_that_we_read(node: readers.Node, cases: list[bytes]) -> None:
    agrees(node, [fuzz_messages.parted(case)[1] for case in cases])


@quick
@given(arguments, st.sampled_from([1, "1", 0, 2**53 - 1, -(2**53) + 1]))
def test_an_id_of_ours_is_that_id_for_node(node: readers.Node, given_arguments: Any, rpc_id: Any) -> None:
    """Below 2**53 there is a double for every integer, so no two ids are one for a reader of doubles."""
    call = {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": {"name": "a", "arguments": {}}}
    said = classify("POST", [JSON], json.dumps(call).encode())
    assert isinstance(said, Exchange)
    [told] = node.read([said.body])
    assert ["id", readers.as_doubles(said.messages[0].rpc_id)] in told


def test_node_is_asked_about_what_it_cannot_read(node: readers.Node) -> None:
    """The comparison would notice: texts that Node refuses or reads as something else."""
    assert node.read([b"\xef\xbb\xbf1", b"[1,]", b"9007199254740993"]) == [
        *([2], [2], "#4340000000000000"),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "a mark"])
@quick
@given(st.integers(0, 400), st.sampled_from([b"", b": x", b"id: 1", b"event: message", b"retry: 3"]))
def test_the_look_at_first_bytes_does_not_hang_on_line_ends(
    end: bytes, mark: bytes, at: int, first: bytes
) -> None:
    """A stream of MCP is seen whichever its line ends, and at the latest when its first event is whole."""
    answer = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","inputSchema":{"type":"object"}}]}}'
    event = mark + first + (end if first else b"") + b"data: " + answer + end + end
    assert looks_like_mcp_response(200, [], event)
    assert looks_like_mcp_response(200, [], event + b"data: {" * at)
    looks_like_mcp_response(200, [], event[:at])
    other = event.replace(answer, b'{"jsonrpc":"2.0","id":1,"result":"0x10"}')
    assert not looks_like_mcp_response(200, [], other)


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        pytest.param({"eq": 2**53}, 2**53 + 1, id="a denied number, one more than doubles tell apart"),
        pytest.param({"in": [2**53, 7]}, 2**53 + 1, id="the same in a list"),
        pytest.param({"le": 2**53}, 2**53 + 1, id="a bound that a double rounds to"),
        pytest.param({"type": "integer"}, 5.0, id="5.0 is an integer for JSON Schema and for Node"),
    ],
)
def test_a_guard_is_in_doubt_where_readers_of_numbers_differ(condition: dict[str, Any], value: float) -> None:
    """The deny must strike: for a server that reads doubles this is the argument that it is about."""
    guard = compile_condition("n", ConditionModel.model_validate(condition))
    assert guard.holds({"n": float(value) if "type" not in condition else int(value)}, guard=True) is True
    assert guard.holds({"n": value}, guard=True) is not False


TOKEN = tokens.mint(bytes(range(32))).encode()


@quick
@given(
    st.sampled_from([b"", b"cid_", TOKEN[:20], TOKEN[:-1]]),
    st.sampled_from([b"", b"x", TOKEN[1:]]),
    st.booleans(),
)
def test_a_token_is_found_in_an_upload_however_it_is_cut(before: bytes, after: bytes, there: bool) -> None:
    body = before + b" " + (TOKEN if there else b"") + after
    for chunks in fuzz_sse.cuttings(body):
        scan, out = TokenScan(), b""
        for chunk in chunks:
            clean = scan.feed(chunk)
            if clean is None:
                break
            out += clean
        else:
            assert not there
            assert out + scan.end() == body
            continue
        assert there
        assert TOKEN not in out
