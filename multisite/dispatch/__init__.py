"""From a request to the site that answers it, in a worker."""

from __future__ import annotations
