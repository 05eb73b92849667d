"""The sites of a home as every process sees them: which there are, who answers a host, where each may run, and what
is noted and counted of them."""

from __future__ import annotations
