"""The pages for whoever reads the code name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "multisite"
SOURCES = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
#: What is defined, assigned, named as a key, or stands between quotes or in a path.
DEFINED = set(re.findall(r"\b(?:def|class) (\w+)", SOURCES)) | set(re.findall(r"\b(\w+) *[:=]", SOURCES))
DEFINED |= set(re.findall(r"[\"/](\w+)", SOURCES))
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGES")),
    *(page for page in sorted((CHECKOUT / "docs").rglob("*.md")) if page.name != "measurements.md"),
]
FOREIGN = {"wsgiref.validate"}


def exists(name: str) -> bool:
    """Tell whether `name` is a module of ours, or the last part of it is defined in one."""
    path = PACKAGE.joinpath(*name.split("."))
    if path.with_suffix(".py").exists() or path.is_dir():
        return True
    return name.rpartition(".")[2] in DEFINED or any(PACKAGE.rglob(f"{name}.py"))


@pytest.mark.parametrize("page", ["architecture.md", "walkthrough.md"])
def test_names_of_the_code_are_those_of_the_code(page: str) -> None:
    """Every module, class and function that the page names exists."""
    text = re.sub(r"\{doc\}`[^`]*`|```.*?```", "", (CHECKOUT / "docs" / page).read_text(), flags=re.DOTALL)
    named = set(re.findall(r"`([A-Za-z_][A-Za-z_.]*)`", text)) - FOREIGN
    assert len(named) > 20
    assert not {name for name in named if not exists(name)}


#: Words that a native speaker would not use so, or that have a usual word.
UNUSUAL = re.compile(
    r"\banew\b|\bgoes on\b|\bgo on\b|\bexit code\b|\bheeded?\b|\bis (?:said|told)\b|\bsays so\b|\bwhat comes of\b|"
    r"\bprocess(?:es)? of (?:its|their) own\b",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_the_usual_words(page: Path) -> None:
    """Outside of what programs print, the pages speak as people do."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert not [line for line in text.splitlines() if UNUSUAL.search(line)]


def test_commands_are_described_as_they_are() -> None:
    """Every command has a part of docs/commands.md, and every option of one is named there or in its help."""
    from multisite.cli import main

    page = (CHECKOUT / "docs" / "commands.md").read_text()
    headings = set(re.findall(r"\w[\w-]*", " ".join(re.findall(r"^## (.*)$", page, re.MULTILINE))))
    missing = set(main.list_commands(None)) - headings - {"install", "completion"}  # type: ignore[arg-type]
    assert not missing
    assert "multisite install" in page and "multisite completion" in page


def test_options_that_pages_name_exist() -> None:
    """`--option` behind the name of a command of ours, in an example, is one that the command takes."""
    import click

    from multisite.cli import main

    context = click.Context(main)
    wrong = []
    for path in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]:
        for line in re.findall(r"^[$#] (?:\S*/)?multisite (.*)$", path.read_text(), re.MULTILINE):
            words = line.partition(" #")[0].partition(" -- ")[0].split()  # behind it are those of another command
            names = [word for word in words if word in main.list_commands(context)]
            command = main.get_command(context, names[0]) if names else None
            known = {name for one in filter(None, (main, command)) for name in names_of(one)}
            wrong += [(path.name, line, word) for word in words if word[:2] == "--" and word.split("=")[0] not in known]
    assert not wrong


def names_of(command: object) -> set[str]:
    import click

    assert isinstance(command, click.Command)
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


def test_the_examples_of_the_router_are_read_as_its_page_says() -> None:
    """Each line of the mapping file leads somewhere, and the function takes nodes in turn."""
    from multisite.router.code import Function
    from multisite.router.groups import Groups
    from multisite.router.mappers import MapFile

    folder = CHECKOUT / "docs" / "deploy" / "router"
    complaints: list[str] = []
    found = {
        key: group and [str(node) for node in group.nodes]
        for key, group in MapFile(str(folder / "mappings.txt"), Groups(complaints.append)).entries()
    }
    assert not complaints
    assert len(found) == 6
    assert found["shop.example.com"] == ["10.0.0.5:3031", "10.0.0.6:3031"]
    assert found["tiles.example.com"] == ["http://10.0.0.8:8080"]
    get = Function("mapper.py:get", str(folder))
    assert [get("shop.example.com") for _ in range(3)] == ["10.0.0.5:3031", "10.0.0.6:3031", "10.0.0.5:3031"]
    assert get("other.example.com") is None
