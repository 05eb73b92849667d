"""`multisite.policies`: the exception that policies in other packages raise."""

from __future__ import annotations

from multisite.config.policies import Refused, directory

__all__ = ["Refused", "directory"]
