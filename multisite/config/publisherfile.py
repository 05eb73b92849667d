"""A publisher file, read."""

from __future__ import annotations

import os
from typing import Any

from multisite.config import checks, publisher
from multisite.config.chain import Chain
from multisite.config.checks import Fault
from multisite.config.options import KNOWN, PUBLISHER_FILE
from multisite.config.publisher import PublisherOptions
from multisite.errors import Problem

SECTION = "publisher"


def read_publisher(path: str) -> tuple[PublisherOptions, dict[str, Any], tuple[Problem, ...]]:
    """Return what the file says, the keys that it sets, and its problems; never raises for what is in the file."""
    chain = Chain(path, os.environ)
    chain.read()
    known = KNOWN[PUBLISHER_FILE][SECTION]
    texts = chain.texts.get(SECTION)
    if texts:
        for _, lines in chain.origins:
            for section, key in list(lines):
                lines[section, publisher.spelled(key, known)] = lines[section, key]
        chain.texts[SECTION] = {publisher.spelled(key, known): text for key, text in texts.items()}
    faults: list[Fault] = []
    written = checks.check(chain.texts, PUBLISHER_FILE, faults).get(SECTION, {})
    for key in {"socket", "tls"} & written.keys():  # relative to the file
        written[key] = os.path.join(os.path.dirname(path), os.path.expanduser(written[key]))
    options = PublisherOptions(**{key: value for key, value in written.items() if value not in ("", ())})
    faults += [Fault(SECTION, key, why, "leave it out", "warning") for key, why in publisher.unheeded(options, written)]
    return options, written, chain.report(faults)
