"""What `serve` needs for some of its publishers: FastCGI's processes, and TLS certificates.

Face: `fastcgi.Server`, `certificates.Certificates`.
May import: as cli.
"""

from __future__ import annotations
