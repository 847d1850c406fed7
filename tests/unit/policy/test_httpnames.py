"""http:METHOD PATH: what it covers, what it does not, and what is in doubt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.credentials.binding import is_canonical
from callerid.credentials.binding import matches as binding_matches
from callerid.mcp.httpcall import plain_path
from callerid.policy.httpnames import _one_spelling, call_matcher, is_plain_path
from callerid.policy.patterns import BadPattern

GET, DOUBT = "GET /v1/**", None


@pytest.mark.parametrize(
    ("selector", "name", "answer"),
    [
        pytest.param("GET /v1/charges", "GET /v1/charges", True, id="the same"),
        pytest.param("GET /v1/charges", "POST /v1/charges", False, id="another method"),
        pytest.param("* /v1/charges", "PROPFIND /v1/charges", True, id="any method"),
        pytest.param("DELETE /v1/charges", "delete /v1/charges", DOUBT, id="a method in lower case"),
        pytest.param("* /v1/charges", "delete /v1/charges", True, id="a method in lower case, to any"),
        pytest.param("GET /v1/charges", "HEAD /v1/charges", DOUBT, id="HEAD, which may do what GET does"),
        pytest.param("HEAD /v1/charges", "GET /v1/charges", False, id="GET is more than HEAD"),
        pytest.param("GET /v1/charges", "GET /V1/charges", DOUBT, id="a path in other letters"),
        pytest.param("DELETE /v1/Admin/**", "DELETE /v1/admin/x", DOUBT, id="a selector in other letters"),
        pytest.param("GET /u/a@b", "GET /u/a%40b", True, id="encoded, and it need not be"),
        pytest.param("GET /u/a%40b", "GET /u/a@b", True, id="a selector encoded, and it need not be"),
        pytest.param("GET /u/%2A", "GET /u/x", False, id="an encoded star is no star"),
        pytest.param("GET /u/%2A", "GET /u/*", True, id="an encoded star is a star in a path"),
        pytest.param("GET /v1/charges/*", "GET /v1/charges/ch_1", True, id="one segment"),
        pytest.param("GET /v1/charges/*", "GET /v1/charges/ch_1/refunds", False, id="two segments"),
        pytest.param("GET /v1/charges/*", "GET /v1/charges", False, id="the folder of a star"),
        pytest.param("GET /v1/charges/*", "GET /v1/charges/", False, id="a star is not an empty segment"),
        pytest.param("GET /v1/charges/*", "GET /v1/charges/ch_1/", DOUBT, id="a slash at the end"),
        pytest.param("GET /v1/charges", "GET /v1/charges/", DOUBT, id="a slash too many"),
        pytest.param("GET /v1/charges/", "GET /v1/charges", DOUBT, id="a slash too few"),
        pytest.param("GET /v1/charges/", "GET /v1/charges/", True, id="the same slash"),
        pytest.param("POST /v1/refunds", "POST /v1/refunds.json", DOUBT, id="an ending that names a format"),
        pytest.param("POST /v1/refunds", "POST /v1/Refunds.JSON/", DOUBT, id="and other letters, a slash"),
        pytest.param("* /v1/admin/**", "GET /v1/admin.xml", DOUBT, id="an ending on a folder"),
        pytest.param("GET /v1/report", "GET /v1/reports.json", False, id="an ending on another name"),
        pytest.param("GET /v1/a.pdf", "GET /v1/a.pdf", True, id="the same ending"),
        pytest.param("GET /v1/a.pdf", "GET /v1/a", False, id="no ending where one is named"),
        pytest.param("* /v1/admin/**", "GET /v1/admin./x", DOUBT, id="a dot at the end of a folder"),
        pytest.param("* /v1/admin/**", "GET /v1/admin%20.%20/x", DOUBT, id="blanks at the end of a folder"),
        pytest.param("* /v1/admin/**", "GET /v1/.../x", False, id="nothing but dots"),
        pytest.param("GET /v1/.well-known", "GET /v1/.well-known", True, id="a dot at the beginning"),
        pytest.param("GET /v1/*/refunds", "GET /v1/ch_1/refunds", True, id="a star in the middle"),
        pytest.param("GET /v1/ch_*_x", "GET /v1/ch_a_x", True, id="a star within a segment"),
        pytest.param("GET /v1/ch_*", "GET /v1/ch_a/b", False, id="a star does not cross a slash"),
        pytest.param(GET, "GET /v1", True, id="the folder itself"),
        pytest.param(GET, "GET /v1/", True, id="the folder with its slash"),
        pytest.param(GET, "GET /v1/a/b/c", True, id="any depth"),
        pytest.param(GET, "GET /v1x", False, id="a longer name"),
        pytest.param(GET, "GET /v2/a", False, id="another folder"),
        pytest.param(GET, "GET /v1/../v2", DOUBT, id="dot segments"),
        pytest.param(GET, "GET /v2/../v1", DOUBT, id="dot segments to it"),
        pytest.param(GET, "GET /v2//x", DOUBT, id="an empty segment"),
        pytest.param(GET, "GET /%76%31/x", DOUBT, id="encoded letters"),
        pytest.param(GET, "GET /v2/a%2fb", DOUBT, id="an encoded slash"),
        pytest.param(GET, "GET /v2;x=1/a", DOUBT, id="path parameters"),
        pytest.param(GET, "GET /v2/a?b=c", DOUBT, id="a query"),
        pytest.param(GET, "GET", DOUBT, id="no path"),
        pytest.param(GET, "POST /v2/../v1", False, id="dot segments with another method"),
        pytest.param("* /**", "X //", True, id="everything"),
        pytest.param("GET /**", "get /v1/..", DOUBT, id="every path, a method in doubt"),
        pytest.param("GET /a%2Cb", "GET /a%2cb", True, id="escapes in either case"),
        pytest.param("GET /caf%C3%A9", "GET /caf%c3%a9", True, id="escapes that have to be, in either case"),
        pytest.param("GET /a[1]", "GET /a[1]", True, id="brackets are not special"),
        pytest.param("GET /a[1]", "GET /a1", False, id="brackets are no set"),
        pytest.param("GET /", "GET /", True, id="the root"),
        pytest.param("GET /", "GET /a", False, id="below the root"),
    ],
)
def test_what_a_selector_covers(selector: str, name: str, answer: bool | None) -> None:
    assert call_matcher(selector)(name) is answer


@pytest.mark.parametrize(
    ("selector", "fault"),
    [
        ("GET", "a method and a path"),
        ("/v1", "a method and a path"),
        ("GET ", "a method and a path"),
        ("get /v1", "in capitals"),
        ("G* /v1", "in capitals"),
        (" /v1", "in capitals"),
        ("GET  /v1", "begins with /"),
        ("GET v1", "begins with /"),
        ("GET /v1/../x", "one spelling"),
        ("GET /v1//x", "one spelling"),
        ("GET /v1?x", "one spelling"),
        ("GET /**/x", "only known as /** at the end"),
        ("GET /a b", "no call has this path"),
        ("GET /é", "no call has this path"),
        ("GET /%61", "no call has this path"),
        ("GET /a%2Fb", "no call has this path"),
        ("GET /a;b", "no call has this path"),
    ],
)
def test_a_selector_that_no_call_could_meet_is_refused(selector: str, fault: str) -> None:
    with pytest.raises(BadPattern, match=fault.replace("*", r"\*")):
        call_matcher(selector)


PIECES = st.sampled_from(["a", "b", "*", "a*", "*b", "%2C", "..", "", "A", "v1"])
PATHS = st.lists(PIECES, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
GLOBS = st.tuples(st.lists(st.sampled_from(["a", "b", "*", "a*", "v1"]), max_size=3), st.booleans()).map(
    lambda made: "/" + "/".join([*made[0], *(["**"] if made[1] else [])])
)


@settings(max_examples=300, deadline=None)
@given(GLOBS, PATHS)
def test_paths_are_read_as_bindings_read_them(glob: str, path: str) -> None:
    """A yes is a yes of the binding; a no is one, but for what is in doubt and the empty star."""
    answer = call_matcher(f"GET {glob}")(f"GET {path}")
    if answer is True:
        assert binding_matches(glob, path) or glob == "/**"
    elif answer is False and not path.endswith("/"):
        assert not binding_matches(glob, path)


@settings(max_examples=300, deadline=None)
@given(st.one_of(PATHS, st.text(max_size=12), st.text(alphabet="/%.;aA2fF5cé", max_size=10)))
def test_a_plain_path_is_what_a_binding_calls_canonical(path: str) -> None:
    assert is_plain_path(path) is is_canonical(path)


@settings(max_examples=200, deadline=None)
@given(GLOBS, st.text(max_size=30))
def test_a_selector_is_total(glob: str, name: str) -> None:
    assert call_matcher(f"GET {glob}")(name) in (True, False, None)


def test_a_long_name_is_answered_as_well() -> None:
    assert call_matcher(GET)("GET /v1/" + "a" * 8_000) is True


CODES = (
    "%20",
    "%22",
    "%2A",
    "%2B",
    "%2C",
    "%3A",
    "%3C",
    "%3D",
    "%40",
    "%5B",
    "%5E",
    "%7C",
    "%C3%A9",
    "%2F",
    "%41",
)
PIECES = st.sampled_from([*"aZ09-._~!$&'()+,:@=*/", *CODES, *map(str.lower, CODES)])


@given(st.lists(PIECES, max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_a_path_is_named_for_rules_as_rules_name_it(path: str) -> None:
    """The two rooms know nothing of each other, so here they are held together (DESIGN section 1, law 4)."""
    path = f"/{path}"
    if not is_plain_path(path):
        return
    name = plain_path(path)
    assert name == _one_spelling(path).replace("*", "%2A")
    assert plain_path(name) == name
    assert is_plain_path(name)
    assert call_matcher(f"GET {name}")(f"GET {name}") is True
