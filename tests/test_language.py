"""The words of what people read: the texts that the product prints, and the documentation, in plain English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each with what to write instead.
STILTED = {
    r"\b(?:is|are|was|were|be|been|being)(?: \w+ly)? (?:said|told)\b": "reports, prints, names, shows",
    r"\b(?:said|told) (?:apart|what|who|why|plainly|so)\b": "reports, prints, names, shows",
    r"(?-i:^Say\b)": "Print, Show, Check",
    r"\banew\b": "again",
    r"\b(?:goes|go|went|going) on (?!to\b)": "keeps running, continues, still serves",
    r"\bwish(?:es)?\b": "preference",
    r"\b(?:supervisor|process|program|worker|server|parent) (?:that )?leaves\b(?! \w)": "exits",
    r"\b(?:an?|have|has) [\w' ]{1,30} of (?:its|their|his) own\b": "its own ...",
    r"\bwhat (?:runs|comes|becomes|is left|there is) of\b": "name the thing",
    r"\bis known to\b": "name who knows, or leave it out",
    r"\bnone that can\b": "say what failed",
    r"\bno room for:": "N columns hidden",
    r"\bon trial\b": "test start",
    r"\bis none of ours\b": "is not ours",
    r"\bas (?:gunicorn|Moya|Apache|nginx) has it\b": "as it does",
    r"\bof which (?:nobody|no more)\b": "two sentences",
    r"\bbe had\b": "is available",
    r"\bthere is to (?:say|see) of\b": "what is known about",
}
STILTED_PATTERNS = [(re.compile(pattern, re.I | re.M), instead) for pattern, instead in STILTED.items()]
# What is never printed, or is not ours to word.
NOT_OURS = re.compile(r"^[\w./%-]*$")


def printed() -> Iterator[tuple[str, str]]:
    """Every text in the package that may be printed, and where it stands: strings, and the help texts of commands."""
    for path in sorted((ROOT / "multisite").rglob("*.py")):
        tree = ast.parse(path.read_text())
        documents = {id(text) for node in ast.walk(tree) for text in _docstring(node)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documents:
                continue
            if not NOT_OURS.match(node.value):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", " ".join(node.value.split())


def _docstring(node: ast.AST) -> list[ast.Constant]:
    """The docstring of a node, unless click prints it as the help of a command."""
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    first = node.body[0] if node.body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return []
    decorators = getattr(node, "decorator_list", [])
    if any(".command(" in text or ".group(" in text for text in map(ast.unparse, decorators)):
        return []
    return [first.value]


def pages() -> Iterator[tuple[str, str]]:
    """Every paragraph of the documentation, and where it begins; listings are left out."""
    for path in [ROOT / "README.md", ROOT / "CHANGES", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"(?ms)^```.*?^```", lambda listing: "\n" * listing[0].count("\n"), path.read_text())
        number = 1
        for paragraph in re.split(r"(\n\s*\n)", text):
            yield f"{path.relative_to(ROOT)}:{number}", " ".join(re.sub("`[^`]*`", "X", paragraph).split())
            number += paragraph.count("\n")


def stilted(texts: Iterator[tuple[str, str]]) -> list[str]:
    return [
        f"{where}: {found[0]!r} ({instead}): {text[max(0, found.start() - 60) : found.end() + 60]}"
        for where, text in texts
        for pattern, instead in STILTED_PATTERNS
        if (found := pattern.search(text))
    ]


@pytest.mark.parametrize("texts", [printed, pages], ids=["printed", "documentation"])
def test_plain_words(texts: object) -> None:
    found = stilted(texts())  # type: ignore[operator]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "Say all problems of all files.",
        "Problems of all files are said.",
        "it is loaded anew with its next request",
        "the old version goes on serving",
        "Wait until the new version serves, or is known to be none that can.",
        "no room for: runs, up",
        "a process of its own",
        "what runs of it",
    ],
)
def test_the_test_finds_them(text: str) -> None:
    assert stilted(iter([("here", text)]))
