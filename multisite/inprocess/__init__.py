"""Importing a site into this interpreter, whole or not at all, and taking it out again."""

from __future__ import annotations
