"""What the buttons do: restart, stop or disable a site, and read the configuration again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from multisite.errors import MultisiteError
from multisite.sites.enabling import Places
from multisite.status.web.markup import Html, tag

if TYPE_CHECKING:
    from multisite.status.inventory import Inventory

#: word -> label of the button, and the question before it is done
OF_A_SITE = {
    "restart": (
        "Restart",
        "Restart {name}? Its application is loaded again. If that fails, the old one keeps serving.",
    ),
    "stop": ("Stop", "Stop the processes of {name}? Its next request starts them again."),
    "disable": ("Disable", "Disable {name}? It is taken out of service; its file stays."),
}
OF_ALL = {"reload": ("Reload", "Read moya.conf and all site files again?")}


def act(inventory: Inventory, word: str, name: str = "") -> str:
    """Do what a button says, and return a sentence about it.

    Args:
        inventory: of the home.
        word: a key of `OF_A_SITE`, or of `OF_ALL`.
        name: of the enabled site.

    Raises:
        MultisiteError: it was refused.
        OSError: a file or link cannot be changed.
    """
    if word == "reload":
        os.utime(inventory.home.file)
        inventory.ask("reload")
        return "Every worker reads the configuration again within a second."
    entry = inventory.catalogue.entries[name]
    if word == "restart":
        return _restart(inventory, name, entry.path)
    if word == "stop":
        answer = inventory.ask("stop", site=name) or {"done": "it was not running"}
        return f"{name}: {answer['done']}."
    stem = os.path.basename(entry.path).removesuffix(".ini")
    step = Places.of(inventory.home.path, inventory.home.projects.read).disable(stem)
    if step.action == "refuse":
        raise MultisiteError(step.message)
    return f"{step.message}."


def _restart(inventory: Inventory, name: str, path: str) -> str:
    """Restart a site where it runs: its processes, or its application in the workers."""
    if not inventory.is_in_workers(name) and inventory.is_held(name):
        answer: dict[str, Any] | None = inventory.ask("restart", site=name)
        if answer:
            return f"{name}: {answer['done']}."
    os.utime(path)
    return f"{name}: its application is loaded again within a second."


def buttons(words: dict[str, tuple[str, str]], path: str) -> Html:
    """Return the buttons, each of which leads to its question."""
    links = (tag("a", label, href=f"{path}?ask={word}", class_="button") for word, (label, _) in words.items())
    return tag("nav", *links, class_="actions", aria_label="Actions")


def question(words: dict[str, tuple[str, str]], word: str, name: str, path: str, form_token: str) -> Html | None:
    """Return the question before something is done; None where nobody asks for that."""
    if word not in words:
        return None
    label, text = words[word]
    form = tag(
        "form",
        tag("input", type="hidden", name="do", value=word),
        tag("input", type="hidden", name="form", value=form_token),
        tag("button", f"{label} now", type="submit"),
        tag("a", "Cancel", href=path, class_="button"),
        method="post",
        action=path,
        class_="actions",
    )
    return tag(
        "div", tag("p", tag("strong", text.format(name=name))), form, class_="ask", role="group", aria_label=label
    )
