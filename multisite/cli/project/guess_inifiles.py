"""Projects that an INI file describes: PasteDeploy's (Pyramid among them) and Moya's."""

from __future__ import annotations

from collections.abc import Iterator

from multisite.cli.project.project import Guess, Project, rank, service

PASTE = ("app:main", "composite:main", "composit:main", "pipeline:main", "filter-app:main")
PREFERRED_INI = ("production.ini", "development.ini")


def paste(project: Project) -> Iterator[Guess]:
    """Files with a section that PasteDeploy serves."""
    for name, sections in project.inis.items():
        main = next((section for section in PASTE if section in sections), None)
        if main:
            uses = sections[main].get("use", "")
            framework = "Pyramid" if any(key.startswith("pyramid.") for key in sections[main]) else "Paste"
            why = f"{name} has [{main}]" + (f" with use = {uses}" if uses else "")
            yield Guess(framework, why, service(project.folder, f"paste:{name}"), rank(name, PREFERRED_INI))


def moya(project: Project) -> Iterator[Guess]:
    """Files that say where a Moya project lies, and how it starts."""
    for name, sections in project.inis.items():
        if "startup" in sections.get("project", {}) and "location" in sections["project"]:
            settings = {"location": project.folder, "ini": name}
            why = f"{name} has [project] with location and startup"
            yield Guess("Moya", why, settings, rank(name, ("production.ini", "settings.ini")))
