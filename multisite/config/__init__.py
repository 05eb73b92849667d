"""From INI text to frozen values; the one option table; safe reading of files.

Face: `read` (homes and site files), `model` and `site` (what they say), `options.OPTIONS` (each key, once), `checks`,
`domains`.
May import: errors.
"""

from __future__ import annotations
