"""The page for those who have not been let in yet (pure)."""

from __future__ import annotations

from multisite.status.web import markup
from multisite.status.web.markup import tag


def destination(path: str) -> str:
    """Return where a browser goes after it has signed in: a path of ours, whatever was sent."""
    is_ours = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isascii() and path.isprintable()
    return path if is_ours and " " not in path else "/"


def page(path: str, has_token: bool, wrong: bool = False) -> str:
    """Return the form that asks for the token, or what opens the pages where there is none.

    Args:
        path: where to go then.
        has_token: whether there is one.
        wrong: the one that was sent is not it.
    """
    if not has_token:
        told = "These pages are open to this machine only. status_token in [service] of moya.conf opens them to others."
        return markup.page("Forbidden", [tag("h1", "Forbidden"), tag("p", told)])
    field = tag(
        "input",
        type="password",
        name="token",
        id="token",
        required=True,
        autocomplete="current-password",
        aria_describedby="wrong" if wrong else None,
    )
    form = tag(
        "form",
        tag("label", "Token ", field, for_="token"),
        tag("input", type="hidden", name="to", value=destination(path)),
        tag("button", "Sign in", type="submit"),
        method="post",
        action="/login",
        class_="plain",
    )
    said = tag("p", "✖ That is not the token.", id="wrong", role="alert", class_="bad") if wrong else None
    return markup.page(
        "Sign in", [tag("h1", "Sign in"), tag("p", "The token is status_token in moya.conf."), said, form]
    )
