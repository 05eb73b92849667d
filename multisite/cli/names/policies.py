"""`multisite.policies`: what policies of other packages raise."""

from __future__ import annotations

from multisite.config.policies import Refused, directory

__all__ = ["Refused", "directory"]
