"""Relaying a request to a backend and its answer back."""

from __future__ import annotations
