"""The rules of docs/architecture.md and CONTRIBUTING.md that no linter knows.

A rule that must be broken somewhere has its exception here, with the reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from firearrow.config import BrokerSettings
from tests.support.brokers import World
from tests.support.namesrv import NameServerWorld

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/firearrow"
MODULES = sorted(SOURCE.rglob("*.py"))
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])

FILE_LINES_MAX = 500
LONG_FILES = {
    "protocol/remoting/requests.py": "the table of all requests",
}
FUNCTION_LINES_MAX = 60
LONG_FUNCTIONS = {
    "store/append.py:append_at": "the path of every send, in one call",
    "broker/broker.py:_admin_handlers": "a table",
}

# A banned name, and the only modules that may use it.
BANNED = {
    "time.time": (),
    "time.time_ns": ("transport/loop.py",),
    "time.monotonic": ("cli/main.py", "transport/loop.py"),  # the loop's own clock counts ms
    "time.perf_counter": (),
    "time.sleep": (),
    "datetime.datetime.now": ("transport/tls.py",),
    "datetime.now": (),
    "datetime.utcnow": (),
    "open": (),
    "os.open": ("store/disk.py",),
    "os.fdopen": ("store/disk.py",),
    "os.system": (),
    "os.popen": (),
    "eval": (),
    "exec": (),
    "__import__": (),
    "threading.Thread": ("transport/loop.py",),
    "socket.socket": ("app.py", "ports.py", "transport/listener.py"),
}
BANNED_MODULES = {
    "subprocess": (),
    "multiprocessing": (),
    "pickle": (),
    "marshal": (),
    "shelve": (),
    "tempfile": ("transport/tls.py",),
    "threading": ("transport/loop.py",),
    "socket": ("app.py", "ports.py", "transport/listener.py"),
    "mmap": ("store/disk.py", "store/memory.py"),
    # the queue of a message, where a pop begins
    "random": ("broker/send_checks.py", "features/pop/popping.py", "features/retry.py"),
}
# Methods of pathlib that touch the disk: the store has its own door, these have settings.
FILE_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "unlink", "rename"}
FILE_METHODS_IN = ("app.py", "config_file.py", "plan.py", "store/disk.py", "transport/tls.py")


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an expression; empty when it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that is read by a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield node.lineno, dotted(node)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_banned_is_called(path: Path) -> None:
    """Time comes from the clock, files are the disk's, nothing runs what it was given."""
    tree, name = tree_of(path), name_of(path)
    found = [
        f"{name}:{line}: {used} is only for {', '.join(BANNED[used]) or 'nobody'}"
        for line, used in uses(tree)
        if used in BANNED and name not in BANNED[used]
    ]
    found += [
        f"{name}:{line}: {module} is only for {', '.join(BANNED_MODULES[module]) or 'nobody'}"
        for line, module in imports(tree)
        if module in BANNED_MODULES and name not in BANNED_MODULES[module]
    ]
    found += [
        f"{name}:{node.lineno}: files are for {', '.join(FILE_METHODS_IN)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in FILE_METHODS
        and name not in FILE_METHODS_IN
        and not dotted(node.func).startswith(("self._disk.", "self.disk.", "disk.", "store.disk."))
    ]
    found += [
        f"{name}:{node.lineno}: import time as a whole, so that its use is seen"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_have_a_size_that_can_be_read(path: Path) -> None:
    name, text = name_of(path), path.read_text("utf-8")
    lines = text.count("\n")
    assert lines <= FILE_LINES_MAX or name in LONG_FILES, f"{name} has {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            place = f"{name}:{node.name}"
            assert size <= FUNCTION_LINES_MAX or place in LONG_FUNCTIONS, f"{place}: {size} lines"


def test_exceptions_that_nobody_needs_are_removed() -> None:
    for name in LONG_FILES:
        assert (SOURCE / name).read_text("utf-8").count("\n") > FILE_LINES_MAX, name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_about(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{name_of(path)} has no docstring"


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.decode()
    if not listed:
        pytest.skip("no git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# Directories of somebody's machine, notes to oneself, numbers of somebody's tracker.
PRIVATE = re.compile(
    rb"(?<![\w.])/(?:home|root|work|Users)/|(?<![\w.])/tmp/(?:fa|wt)\b"
    rb"|\b(?:TODO|FIXME|HACK)\b|\b(?:issue|PR|pull request) #\d+",
)
BINARY = {".png", ".ico", ".gz", ".bin"}
OF_OTHERS = {"package-lock.json", "go.sum", "requirements.lock", "test_house.py"}


def test_the_project_speaks_of_itself_alone() -> None:
    found = []
    for path in tracked():
        if path.suffix in BINARY or path.name in OF_OTHERS or "golden" in path.parts:
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            match = PRIVATE.search(line)
            if match:
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group().decode()}")
    assert not found, "\n".join(found)


# -- documents


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_and_links_of_the_documents_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    wanted = set(re.findall(r"(?:^|`|&& )make ([a-z-]+)", text, re.MULTILINE))
    assert wanted <= targets(), f"{path.name}: no make {wanted - targets()}"
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (path.parent / link).exists(), f"{path.name} links to {link}, which is not there"


def options_of(name: str) -> set[str]:
    from firearrow.cli.main import main

    command = main.commands[name]
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_flags_of_the_documents_exist(path: Path) -> None:
    from firearrow.cli.main import main

    for line in re.findall(
        r"firearrow ((?:up|namesrv|broker|proxy|redrive) [^`\n]*)", path.read_text("utf-8")
    ):
        command = line.split()[0]
        assert command in main.commands, line
        for flag in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", line):
            known = options_of(command) | {"-h", "--help"}
            assert flag in known, f"{path.name}: firearrow {command} has no {flag}"


def test_the_changelog_has_a_place_for_what_comes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "\n## Unreleased\n" in text


def test_every_room_is_in_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    rooms = {path.relative_to(SOURCE).parts[0] for path in MODULES} - {"__init__.py", "__main__.py"}
    missing = {room for room in rooms if f"`{room}" not in text and f"{room}/`" not in text}
    assert not missing, f"docs/architecture.md does not say what {missing} is for"


def test_the_table_of_settings_is_true() -> None:
    """Keys and defaults of docs/settings.md are those of the program."""
    text = (ROOT / "docs/settings.md").read_text("utf-8")
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))
    real = {}
    for field in msgspec.structs.fields(BrokerSettings):
        value = field.default
        if value is msgspec.NODEFAULT:
            real[field.encode_name] = "the host's name"
        else:
            value = str(value).lower() if isinstance(value, bool) else value
            real[field.encode_name] = "" if value == "" else f"`{value}`"
    assert shown == real


# -- what is served

ROW = re.compile(r"^\| (\d+) \| ([A-Z0-9_]+) \| (yes|no)\b.*\|$", re.MULTILINE)
OF_NAME_SERVERS = ("Clients and operators to the name server", "Brokers to the name server")


def documented() -> dict[str, dict[int, tuple[str, bool]]]:
    """Section -> code -> (name, whether it is served)."""
    text = (ROOT / "docs/protocol.md").read_text("utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        if title.startswith("Servers to"):
            continue
        rows = ROW.findall(section)
        found[title] = {int(code): (name, served == "yes") for code, name, served in rows}
    return found


def test_the_table_of_requests_is_true(tmp_path: Path) -> None:
    world = World(tmp_path)
    broker = world.broker.routes()
    world.stop()
    name_server = NameServerWorld().server.routes()
    wrong = []
    for routes, of_name_server in ((broker, False), (name_server, True)):
        rows = {
            code: row
            for title, table in documented().items()
            if (title in OF_NAME_SERVERS) == of_name_server
            for code, row in table.items()
        }
        for code, route in routes.items():
            if rows.get(code) != (route.name, True):
                wrong.append(f"docs/protocol.md must have: | {code} | {route.name} | yes |")
        for code, (name, served) in rows.items():
            if served and code not in routes:
                wrong.append(f"docs/protocol.md must have: | {code} | {name} | no |")
    assert not wrong, "\n".join(wrong)


# What official clients send; each is served, or said not to be.
BY_CLIENTS = {10, 11, 12, 14, 15, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 41, 42, 46, 310, 320}
BY_CLIENTS |= {324, 325, 361, 370, 400, 200050, 200051, 200053, 200054, 200151}


def test_whatever_a_client_may_send_is_in_the_table() -> None:
    assert documented()["Clients to the broker"].keys() >= BY_CLIENTS
    assert 105 in documented()[OF_NAME_SERVERS[0]]
