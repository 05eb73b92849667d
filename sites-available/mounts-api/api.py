"""The site below /api, made by a factory: `application = api:make_application("things")`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any


def make_application(subject: str) -> Callable[..., Iterable[bytes]]:
    """Make the application; what the site file writes between the parentheses arrives here."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer = {
            "subject": subject,
            "SCRIPT_NAME": environ["SCRIPT_NAME"],
            "PATH_INFO": environ["PATH_INFO"],
        }
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode() + b"\n"]

    return application
