"""Configurations of front ends: each renderer is pure and turns a view of the sites into text."""

from __future__ import annotations
