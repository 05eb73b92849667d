"""Configurations of web servers that stand in front: each renderer is pure, from a view of the sites to text."""

from __future__ import annotations
