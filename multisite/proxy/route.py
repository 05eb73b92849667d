"""What a relay needs to know of the place where requests go."""

from __future__ import annotations

from typing import Protocol

from multisite.config.endpoint import Endpoint
from multisite.errors import MultisiteError
from multisite.proxy.client import Environ
from multisite.proxy.pace import Pace
from multisite.proxy.queued import Queued
from multisite.proxy.share import Share
from multisite.proxy.upload import Upload
from multisite.proxy.upstream import Exchange


class NotNow(Exception):
    """What was asked for can be had, but not at once."""


class Route(Protocol):
    """A site's processes, or its upstreams.

    Attributes:
        pace: how long a worker's thread waits for an answer.
        queue: the requests that nobody has taken yet.
        places: what of it is in the relay loop of this process.
        share: of the server's threads, where they have to wait.
        stall_timeout: seconds between two parts of an answer; 0 for no limit.
        upload_rate: bytes of a request's body that have to come in a second; 0 for any number.
        sends: an answer may have the front end send a file (`headers.SENDERS`).
        can_explain: `explain` may have something to say.
        taker: where requests can be handed over with their connections (`handoff`), None for nowhere.
    """

    pace: Pace
    queue: Queued
    places: set[object]
    share: Share
    stall_timeout: float
    upload_rate: float
    sends: bool
    can_explain: bool
    taker: Endpoint | None

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send the request, the first piece of its body at least.

        Raises:
            NotNow: in a hurry, that would take time; nothing was sent.
            MultisiteError: it cannot be sent; after `ConnectFailed` and `BackendUnavailable` nothing was.
        """

    def explain(self, error: MultisiteError) -> None:
        """Ask why there was no answer, which may take time; raise the error that says it better."""
