"""Every warning and every error of ours has an id, and each id has its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from click.testing import CliRunner

from multisite import errors
from multisite.cli import main
from multisite.errors import MultisiteError, codes, pages

PACKAGE = Path(codes.__file__).parent.parent
WHAT_TO_DO = (
    "give it the id of messages.ini that fits, as the first word or the first argument; "
    "if none fits, add one there with its cause, its outcome and what to do"
)
LEVELS = {"warning", "error", "exception", "critical"}
#: what takes an id as its first argument, everywhere or in one file
TAKES_ID = {"Problem", "Fault", "log_failure"}
BUILDERS = {
    "sites/htpasswd.py": "_problem",
    "status/project/faults.py": "_problem",
    "logs/loggingini.py": "problem",
    "logs/loggingplan.py": "problem",
}
#: lines of a process that are no warnings
NEWS = ("debugger PIN", "has no debugger here")
#: an id that is used in several files has the same cause in each: a check finds early what stops the service later
SHARED = {
    "MS236": "a line of a password file, found by the check and by the workers",
    "MS242": "a name that is taken, by the files and by the editor",
    "MS243": "a domain that is taken, by the files and by the editor",
    "MS323": "the error, and its line in the log",
    "MS328": "the error, and its line in the log",
    "MS531": "the folder of a site, found by the check, by a policy and by a start",
    "MS532": "a closed folder, found before a start and while it is planned",
    "MS615": "a request that cannot be read, in processes for WSGI and for ASGI",
    "MS622": "a command that cannot be run, behind a relay, a smoke request or a lease",
    "MS730": "the mapping file, found by the check and by the router",
    "MS731": "a setting of the router, found by the check and by the router",
    "MS732": "a line of the mapping file, found by the check and by the router",
    "MS742": "which node this is, for the machine and for each site that depends on it",
    "MS743": "the registry, found by the check and by the supervisor",
    "MS813": "a site that cannot be examined, in a report and in the document",
    "MS833": "a value in logging.ini, found by the reader and by the planner",
}


def is_id(node: ast.expr | None) -> bool:
    """Tell whether an expression is an id: a literal, or what a variable or an attribute `id` holds."""
    match node:
        case ast.Constant(value=str(text)):
            return bool(codes.ID.fullmatch(text))
        case ast.Name(id="id") | ast.Attribute(attr="id"):
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return is_id(body) and (is_id(orelse) or ast.unparse(orelse) == "''")
    return False


def begins_with_id(text: ast.expr | None, more: list[ast.expr]) -> bool:
    """Tell whether a text begins with an id: literally, or with a ``%s`` for which an id follows."""
    if isinstance(text, ast.JoinedStr):
        first = text.values[0]
        return begins_with_id(first, []) if isinstance(first, ast.Constant) else False
    if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
        return False
    return bool(re.match(r"MS\d{3}( |$)", text.value)) or (text.value.startswith("%s ") and is_id((*more, None)[0]))


def is_logger(node: ast.expr) -> bool:
    return bool(re.search(r"(?:^|[._])log(?:ger)?$|_logger\(.*\)$|getLogger\(.*\)$", ast.unparse(node)))


def without_id(source: str, file: str = "x.py") -> list[str]:
    """Return the places of a source text where a warning, an error or a problem has no id."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not _has_id(node, file) and not _is_exempt(node, file):
            found.append(f"{file}:{node.lineno}: {ast.unparse(node)[:100]}")
    for node in errors_of_ours(tree):
        if not any(isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "id" for line in node.body):
            found.append(f"{file}:{node.lineno}: class {node.name}")
    return found


def _is_exempt(node: ast.Call, file: str) -> bool:
    """Tell whether an unpacked record of a problem, or a line that is no warning, is made."""
    return bool(node.keywords and node.keywords[0].arg is None) or (
        file.startswith("runner/") and any(words in ast.unparse(node) for words in NEWS)
    )


def _has_id(node: ast.Call, file: str) -> bool:
    """Tell whether a call has an id, or needs none."""
    name = ast.unparse(node.func).rpartition(".")[2]
    args = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg in ("reason", "text"))]
    if isinstance(node.func, ast.Attribute) and is_logger(node.func.value):
        if name in LEVELS:
            return bool(args) and begins_with_id(args[0], args[1:])
        is_ours = not any(keyword.arg == "extra" for keyword in node.keywords)  # not what a site has printed
        return name != "log" or not is_ours or begins_with_id(args[1], args[2:])
    if name in TAKES_ID or name == BUILDERS.get(file):
        return bool(args) and is_id(args[0])
    if name in ("Refused", "NeedsRoot") and file != "config/policies.py":
        return name == "NeedsRoot" or any(keyword.arg == "id" and is_id(keyword.value) for keyword in node.keywords)
    if file.startswith("runner/"):
        is_printed = name == "print" and any("stderr" in ast.unparse(keyword.value) for keyword in node.keywords)
        if (name == "say" and file != "runner/report.py") or is_printed:
            return begins_with_id(args[0], [])
        if name == "report":
            return begins_with_id(args[1], [])
    return True


OURS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, MultisiteError)}


def errors_of_ours(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """Yield the classes whose base is one of our errors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & OURS:
            yield node


def sources() -> dict[str, str]:
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text()
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "codes.py"
    }


def places() -> dict[str, set[str]]:
    """Return the files that use each id in a text, not in a docstring or as an example for users."""
    found: dict[str, set[str]] = {}
    for file, source in sources().items():
        for id in re.findall(r"""f?["'](MS\d{3})(?=[ "'])""", source):
            found.setdefault(id, set()).add(file)
    return found


@pytest.mark.parametrize("room", sorted({file.split("/")[0] for file in sources()}))
def test_every_warning_and_error_has_an_id(room: str) -> None:
    mine = {file: source for file, source in sources().items() if file.split("/")[0] == room}
    wrong = [place for file, source in mine.items() for place in without_id(source, file)]
    assert not wrong, "\n".join([WHAT_TO_DO, *wrong])


def test_every_id_has_a_text_and_is_used() -> None:
    assert places().keys() - codes.messages().keys() == set(), "add them to messages.ini"
    assert codes.messages().keys() - places().keys() == set(), "nothing uses them: remove them from messages.ini"


def test_an_id_is_used_for_one_cause() -> None:
    several = {id: sorted(files) for id, files in places().items() if len(files) > 1}
    strange = {id: files for id, files in several.items() if id not in SHARED}
    assert not strange, f"take another id, or give the reason in SHARED: {strange}"
    assert SHARED.keys() - several.keys() == set()


def test_no_two_classes_have_the_same_id() -> None:
    ids = [
        (ast.literal_eval(line.value), node.name)
        for source in sources().values()
        for node in errors_of_ours(ast.parse(source))
        for line in node.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "id"
    ]
    assert len(ids) > 30 and len(dict(ids)) == len(ids)


def test_the_texts_are_whole_sentences_in_the_order_of_their_ids() -> None:
    messages = codes.messages()
    assert list(messages) == sorted(messages)
    for id, message in messages.items():
        assert codes.ID.fullmatch(id) and id[2] in codes.ABOUT
        for text in (message.cause, message.outcome, message.remedy):
            assert text[0].isupper() or text[0] in "`m", f"{id}: {text}"
            assert text.endswith("."), f"{id}: {text}"
            assert text.count("`") % 2 == 0, f"{id}: {text}"
        assert not message.title.endswith("."), id


def test_no_id_looks_like_the_status_of_an_answer() -> None:
    assert not {f"MS{status.value}" for status in HTTPStatus} & codes.messages().keys()


def test_the_page_has_each_id() -> None:
    page = codes.reference_rst()
    for id, message in codes.messages().items():
        assert f".. _{id}:\n\n{id}: {message.title.replace('`', '``')}\n" in page


@pytest.mark.parametrize(
    "source",
    [
        "_log.warning('cannot count: %s', error)",
        "_log.error('%s: %s', error, reason)",
        "_log.exception(f'{name} failed')",
        "self._logger.error('no id')",
        "servicelog.site_logger(name).warning('%s', text)",
        "_log.log(level, '%s', problem)",
        "Problem(site.file, reason)",
        "Problem(file=path, reason=reason)",
        "faults.append(Fault('service', 'name', reason))",
        "class Late(BackendUnavailable):\n    '''Too late.'''",
        "raise Refused('it may not')",
    ],
)
def test_the_test_finds_what_has_no_id(source: str) -> None:
    assert without_id(source)


@pytest.mark.parametrize(
    "source",
    [
        "_log.warning('MS246 cannot count: %s', error)",
        "_log.error('%s incident %s', error.id, incident)",
        "_log.info('ready')",
        "self.error('no logger')",
        "Problem('MS114', path, reason)",
        "Problem(fault.id, path, reason)",
        "class Late(BackendUnavailable):\n    '''Too late.'''\n\n    id = 'MS520'",
    ],
)
def test_the_test_lets_pass_what_has_one(source: str) -> None:
    assert not without_id(source)


def test_a_page_for_visitors_shows_no_id() -> None:
    """Whatever the error, and for a developer, too."""
    for name in sorted(OURS):
        kind = getattr(errors, name)
        error = kind.__new__(kind)
        MultisiteError.__init__(error, "It does not work")
        error.incident, error.detail = "3fa9c1d2", "Traceback"
        for environ in ({}, {"HTTP_ACCEPT": "application/json"}, {"HTTP_ACCEPT": "text/html"}):
            sent: list[object] = []
            body = b"".join(pages.for_error(error)(environ, lambda *head: sent.append(head)))  # type: ignore[arg-type]
            assert not codes.ID.search(f"{sent} {body.decode()}"), name


def test_an_id_is_explained_without_a_home() -> None:
    done = CliRunner().invoke(main, ["--home", "/nonexistent", "explain", "ms114"])
    message = codes.messages()["MS114"]
    assert done.exit_code == 0
    for text in (f"MS114: {message.title}", message.cause, message.outcome, message.remedy):
        assert text in done.stdout


def test_an_id_is_explained_as_json() -> None:
    done = CliRunner().invoke(main, ["--json", "explain", "MS114"])
    assert done.exit_code == 0 and '"id": "MS114"' in done.stdout and '"remedy": ' in done.stdout


def test_an_unknown_id_is_an_error() -> None:
    done = CliRunner().invoke(main, ["explain", "MS999"])
    assert done.exit_code == 1 and done.stderr == "multisite: no message has the id MS999\n"
