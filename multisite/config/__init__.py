"""From INI text to frozen values; the one option table; safe reading of files."""

from __future__ import annotations
