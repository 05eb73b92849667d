"""One process: what it is started with, by whom, as whom, and what it prints."""

from __future__ import annotations
