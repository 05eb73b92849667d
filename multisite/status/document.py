"""The document that ``--json status`` prints: the supervisor and every site; all views of a home use it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from multisite.config.model import Site
from multisite.errors import Problem
from multisite.sites.usage import UNKNOWN
from multisite.status.fence import fenced
from multisite.status.report import SiteReport, judge

if TYPE_CHECKING:
    from multisite.config.model import SiteFile
    from multisite.status.inventory import Inventory

    Judge = Callable[[Inventory, str], SiteReport]


def _judge(inventory: Inventory, name: str) -> SiteReport:
    return judge(inventory, inventory.catalogue.site(name))


def document(inventory: Inventory, judged: Judge = _judge) -> dict[str, Any]:
    """Return the document of ``list`` and ``status`` with --json; `judged` judges the enabled site of a name."""
    answer = inventory.supervisor
    supervisor, preloaders = (answer["supervisor"], answer.get("preloaders", [])) if answer else (None, [])
    hidden = {"hidden": inventory.hidden} if inventory.hidden else {}
    draining = {"draining": {"since": inventory.drain.since}} if inventory.drain else {}
    strangers = inventory.usage[0].get(UNKNOWN)
    known = {
        "supervisor": supervisor,
        "preloaders": preloaders,
        "unknown_hosts": None if inventory.hidden else strangers.requests if strangers else 0,
    }
    return {**known, **draining, **hidden, "sites": rows(inventory, judged)}


def rows(inventory: Inventory, judged: Judge = _judge) -> list[dict[str, Any]]:
    """Describe all sites, enabled ones first; an instance follows its hosting site once it had a request."""
    instances = _instance_rows(inventory)
    found: list[dict[str, Any]] = []
    for name, entry in inventory.catalogue.entries.items():
        step = partial(_enabled_row, inventory, entry.file.name, judged)
        found += [fenced(inventory, name, step, partial(_faulty_row, inventory, entry.file)), *instances.get(name, ())]
    for file in inventory.disabled.values():
        step = partial(_disabled_row, inventory, file)
        found.append(fenced(inventory, file.name, step, partial(_faulty_row, inventory, file, enabled=False)))
    return found


def _enabled_row(inventory: Inventory, name: str, judged: Judge) -> dict[str, Any]:
    return judged(inventory, name).as_dict()


def _instance_rows(inventory: Inventory) -> dict[str, list[dict[str, Any]]]:
    """Describe the instances that the supervisor knows, by the name of their hosting site."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, known in sorted(inventory.supervisor["sites"].items()) if inventory.supervisor else ():
        template = known["template"]
        if known["host"] and template in inventory.catalogue.entries:
            file = inventory.catalogue.entries[template].file
            one = fenced(
                inventory, name, partial(_instance_row, inventory, known), partial(_faulty_row, inventory, file)
            )
            found.setdefault(template, []).extend([one] if one else ())
    return found


def _instance_row(inventory: Inventory, known: dict[str, Any]) -> dict[str, Any] | None:
    from multisite.sites.placement import HOSTING

    instance = inventory.catalogue.instance(known["template"], known["host"])
    if not instance:
        return None
    failure = inventory.failed_starts.get(instance[1].name)
    return SiteReport(inventory, instance[1], "spawned", HOSTING, known["state"], failure=failure).as_dict()


def _disabled_row(inventory: Inventory, file: SiteFile) -> dict[str, Any]:
    from multisite.config.read import make_site

    site = make_site(file, inventory.home)
    report = SiteReport(inventory, site, None, "it is not enabled", "stopped", file.problems, enabled=False)
    return report.as_dict(figures=False)


def _faulty_row(inventory: Inventory, file: SiteFile, reason: str, enabled: bool = True) -> dict[str, Any]:
    """Describe a site of which only a reason for its failure is known."""
    site, state = Site(file.path, file.name, file.domains, file.mount), "broken" if enabled else "stopped"
    report = SiteReport(inventory, site, None, reason, state, (Problem("MS813", file.path, reason),), enabled=enabled)
    return report.as_dict(figures=False)
