"""The documentation is true: what the code knows is generated, links resolve, examples load, options exist.

With ``CALLERID_WRITE_DOCS=1`` the generated parts are written anew instead.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.test import taddons

from callerid.audit import redact, writer
from callerid.cli.main import COMMANDS, main
from callerid.config import Identities, Issuer
from callerid.credentials import secret, sources
from callerid.identity import authority, certificates, dpop, jwks, jwt
from callerid.mcp import methods
from callerid.model import Outcome, Reason
from callerid.policy import strictyaml
from callerid.policy.load import FILES, load_rules
from callerid.proxy import addon, connections, harden, recording, runtime
from callerid.proxy import limits as settable

ROOT = Path(__file__).resolve().parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [README, ROOT / "CHANGELOG.md", *PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = {"curl", "git", "sqlite3", "mitmdump", "python3.13"}
"""Programs in the examples whose options are not ours. mitmdump's --set is looked at all the same."""


def name_of(path: Path) -> str:
    return path.name


# -- the generated parts


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))


def shown(value: object) -> str:
    """A constant as a person reads it: sizes in KiB and MiB, spans of time, options as they are set."""
    match value:
        case bool():
            return str(value).lower()
        case timedelta():
            return span(value.total_seconds())
        case float():
            return span(value)
        case int() if value >= 1024 and value % 1024 == 0:
            return f"{value >> 20} MiB" if value % (1 << 20) == 0 else f"{value >> 10} KiB"
    return str(value)


def span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def options() -> Iterator[tuple[str, str, str, str, str]]:
    """The limits that are options: name, default, bounds, what it is, and what becomes of who goes beyond."""
    for option in settable.OPTIONS:
        default, bounds = option.default or "none", ""
        if option.unit is not settable.Unit.PLACES:
            least, most = settable.shown(option, option.least), settable.shown(option, option.most)
            bounds = f"{least} to {most}" + (", or 0: never" if option.never else "")
        if option.unit is settable.Unit.SECONDS:
            default = f"{default} s"
        coded = isinstance(option.beyond, Reason | Outcome)
        beyond = f"`{option.beyond}`" if coded else str(option.beyond)
        yield f"`{option.name}`", default, bounds, option.help, beyond


def limits() -> Iterator[tuple[str, str, str]]:
    """What is bounded: by how much, and what happens beyond."""
    queue = inspect.signature(writer.AuditWriter).parameters["queue_limit"].default
    seconds = (authority.REMEMBER_US / 1e6, float(harden.TCP_TIMEOUT), float(Identities().token_max_ttl))
    remembered, idle, longest = map(span, seconds)
    stale = span(float(Issuer(id="", issuer="", audiences=(), algorithms=()).stale_for))
    yield "a tool's or a prompt's name", f"{methods.MAX_NAME} characters", "`malformed_message`"
    yield "a resource's URI", f"{methods.MAX_URI} characters", "`malformed_message`"
    yield "silence on a connection", idle, "it is closed; option `tcp_timeout`, in seconds"
    yield (
        "upstream connections of one client connection",
        str(connections.UPSTREAM_CONNECTIONS),
        "requests wait",
    )
    yield "the commit of a row", shown(recording.RECORD_TIMEOUT), "`audit_unavailable`"
    yield "rows that wait for it", str(queue), "`audit_unavailable`"
    yield "an argument's text in a row", shown(redact.STRING_LIMIT), "cut, with a note"
    yield "all arguments in a row", shown(redact.JSON_LIMIT), "cut, with a note"
    yield "a scoped token's life", longest, "`max_ttl` of the issuer `local` in identities.yaml"
    yield "a JWT", shown(jwt.MAX_TOKEN), "`jwt_invalid`"
    yield "its `act` chain", f"{jwt.MAX_ACTORS} actors", "`jwt_invalid`"
    yield "a DPoP proof", shown(dpop.MAX_PROOF), "`jwt_proof`"
    yield "its age", span(dpop.PROOF_AGE_US / 1e6), "`jwt_proof`"
    kept = f"{dpop.PROOFS_PER_HOLDER} per principal, {dpop.PROOFS} in all"
    yield "DPoP proofs that are remembered", kept, "`jwt_proof`"
    yield "the keys of an issuer", shown(jwks.MAX_DOCUMENT), "the last good ones are kept"
    yield "their age", shown(jwks.REFRESH_EVERY), "fetched again"
    yield "their age when the issuer cannot be reached", stale, "`jwt_keys_unavailable`"
    yield "a client's certificate chain", f"{certificates.MAX_CHAIN} certificates", "`certificate_untrusted`"
    yield "belief in a verified caller", remembered, "verified again"
    yield (
        "a shared secret",
        f"{secret.MIN_LENGTH} to {sources.MAX_LENGTH} characters",
        "`credential_unavailable`",
    )
    yield "a rule file", shown(strictyaml.MAX_BYTES), "does not load"
    yield "a look at rules, secrets, lists and open streams", f"every {shown(runtime.POLL_SECONDS)}", ""


def blocks() -> Mapping[str, str]:
    """The generated tables of docs/deploy.md and docs/limits.md by name."""
    required = ((f"`{name}`", f"`{shown(value)}`", why) for name, (value, why) in harden.REQUIRED.items())
    forbidden = [(f"`{name}`", why) for name, why in harden.FORBIDDEN.items()]
    forbidden += [(f"environment: `{name}`", "TLS keys would be written out") for name in harden.ENVIRONMENT]
    return {
        "hardened": markdown(("option", "must be", "otherwise"), required),
        "forbidden": markdown(("option", "why not"), forbidden),
        "limits": markdown(("what", "limit", "beyond it"), limits()),
        "options": markdown(("option", "default", "bounds", "what", "beyond it"), options()),
    }


def renewed(text: str, *names: str) -> str:
    """A page with these tables as they are today."""
    for name, block in ((name, blocks()[name]) for name in names):
        begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        head, found, rest = text.partition(begin)
        assert found, f"the page has no place for {name}"
        text = head + begin + block + end + rest.partition(end)[2]
    return text


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name, as typed, groups before what is in them."""
    context = click.Context(main, info_name="callerid")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())


HEAD = """# Commands

<!-- Generated. CALLERID_WRITE_DOCS=1 scripts/test tests/unit/test_docs.py writes it anew. -->

Exit codes: 0 done, 1 the answer is no (denied, nothing found, a check failed), 2 wrong usage or
configuration. Errors and their hints go to stderr. `CALLERID_HOME` and `CALLERID_RULES` in the
environment stand for `--home` and `--rules`."""


def manual() -> str:
    """docs/commands.md: what each command says of itself."""
    parts = [
        HEAD,
        helped([]),
    ]
    for name, _ in commands():
        parts += [f"## callerid {name}", helped(name.split())]
    return "\n\n".join(parts) + "\n"


def helped(words: list[str]) -> str:
    done = CliRunner().invoke(main, [*words, "--help"], prog_name="callerid", terminal_width=100)
    assert done.exit_code == 0, done.output
    return f"```text\n{done.output.strip()}\n```"


def agree(page: Path, today: str) -> None:
    """The page is ``today``; told to write, write it and still fail, so that nobody takes it for checked."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if os.environ.get("CALLERID_WRITE_DOCS") == "1":
        page.write_text(today, encoding="utf-8")
    assert text == today


@pytest.mark.parametrize(
    ("name", "tables"), [("deploy.md", ("hardened", "forbidden", "limits")), ("limits.md", ("options",))]
)
def test_the_tables_of_a_page_are_those_of_the_code(name: str, tables: tuple[str, ...]) -> None:
    page = DOCS / name
    agree(page, renewed(page.read_text(encoding="utf-8"), *tables))


def test_the_commands_are_described_as_they_describe_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALLERID_HOME", "CALLERID_RULES"):
        monkeypatch.delenv(name, raising=False)
    agree(DOCS / "commands.md", manual())


# -- completeness


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_options_is_on_the_page(name: str) -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for full, command in commands():
        if full.split()[0] != name:
            continue
        section = text.partition(f"## callerid {full}\n")[2].partition("\n## ")[0]
        assert section, f"there is no section for {full}"
        for option in (item for item in command.params if isinstance(item, click.Option)):
            assert set(option.opts) <= set(re.findall(r"-{1,2}[a-z][a-z-]*", section)), (full, option.opts)
            assert option.help, f"{full} {option.opts[0]} does not say what it does"


@pytest.mark.parametrize("option", ["callerid_home", "callerid_rules", *harden.REQUIRED, *harden.FORBIDDEN])
def test_every_option_of_mitmproxy_that_we_speak_of_is_in_deploy(option: str) -> None:
    assert re.search(rf"\b{option}\b", (DOCS / "deploy.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained_in_audit(reason: Reason) -> None:
    assert re.search(rf"^\| `{reason}` \|", (DOCS / "audit.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_law_is_in_the_threat_model() -> None:
    text = (DOCS / "threat-model.md").read_text(encoding="utf-8")
    assert re.findall(r"^\*\*(\d+)\. [^*]+\.\*\*", text, re.MULTILINE) == [str(n) for n in range(1, 11)]


# -- links


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_is_linked_from_the_readme(page: Path) -> None:
    assert f"](docs/{page.name})" in README.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"^#{1,6} (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_every_link_within_the_house_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            lost.append(target)
    assert lost == []


# -- nothing of one machine, and readable


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_a_page_is_plain(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.*-])/(?:root|tmp|home|Users|work)/\S*", text) == []
    assert "\t" not in text
    prose = re.sub(r"^\|.*$", "", FENCE.sub("", text), flags=re.MULTILINE)
    assert [line for line in prose.splitlines() if len(line) > 125 and "<!--" not in line] == []


def test_the_readme_is_read_in_three_minutes() -> None:
    """250 words a minute, without what stands in blocks and tables, which are looked at."""
    prose = re.sub(r"^\|.*$", "", FENCE.sub("", README.read_text(encoding="utf-8")), flags=re.MULTILINE)
    assert len(prose.split()) <= 750


# -- the examples


def example_commands() -> list[tuple[str, str]]:
    """(page, command) of every command line in a shell block; continued lines joined."""
    found = []
    for page in TEXTS:
        for kind, body in FENCE.findall(page.read_text(encoding="utf-8")):
            lines = body.replace("\\\n", " ").splitlines()
            if kind == "console":
                lines = [line[2:] for line in lines if line.startswith("$ ")]
            if kind in ("sh", "console"):
                found += [(page.name, line) for line in lines]
    return found


def our_options(words: list[str]) -> set[str] | None:
    """The options that a command line of ours may have; None for somebody else's."""
    while words and re.match(r"\w+=|sudo$", words[0]):
        words = words[1:]
    if not words or Path(words[0]).name not in ("callerid", "run", "demo"):
        return None
    if Path(words[0]).name == "callerid":
        words = words[1:]
    known = dict(commands())
    names = [" ".join(Path(word).name for word in words[:length]) for length in (2, 1)]
    command = next((known[name] for name in names if name in known), None)
    assert command is not None, f"there is no such command: {words}"
    return {name for param in command.params if isinstance(param, click.Option) for name in param.opts} | {
        "--help"
    }


def test_the_commands_in_the_examples_have_their_options() -> None:
    seen = 0
    for page, line in example_commands():
        words = shlex.split(line, comments=True)
        allowed = our_options(words)
        if allowed is None:
            continue
        seen += 1
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= allowed, (page, line)
    assert seen > 10


def test_the_options_that_the_pages_set_exist() -> None:
    with taddons.context(addon.CalleridAddon(), Proxyserver(), TlsConfig()) as context:
        known = set(context.options.keys())
    for page in TEXTS:
        for name in re.findall(r"--set[ =]([a-z]\w*)=", page.read_text(encoding="utf-8")):
            assert name in known, (page.name, name)


BARE: Mapping[str, str] = {
    "identities.yaml": "version: 1\n",
    "servers.yaml": "version: 1\nservers: []\n",
    "credentials.yaml": "version: 1\n",
    "policy.yaml": "version: 1\nrules: []\n",
}


def examples(page: Path) -> list[dict[str, str]]:
    """The rule files of a page's YAML blocks. A file that was there already begins the next set."""
    sets: list[dict[str, str]] = [{}]
    for kind, body in FENCE.findall(page.read_text(encoding="utf-8")):
        name = body.partition("\n")[0].removeprefix("# ")
        if kind != "yaml" or name not in FILES:
            continue
        if name in sets[-1]:
            sets.append({})
        sets[-1][name] = body
    return [made for made in sets if made]


@pytest.mark.parametrize("page", [README, DOCS / "deploy.md"], ids=name_of)
def test_the_rules_in_the_examples_load(page: Path, tmp_path: Path) -> None:
    found = examples(page)
    assert found
    for number, files in enumerate(found):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in {**BARE, **files}.items():
            (folder / name).write_text(text, encoding="utf-8")
        identities = files.get("identities.yaml", "")
        for named in re.findall(r"(?:file|crl): ([\w/.-]+\.(?:pem|crl|json))", identities):
            (folder / named).parent.mkdir(exist_ok=True)
            (folder / named).write_text("", encoding="utf-8")
        load_rules(folder)
