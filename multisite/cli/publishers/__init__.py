"""What `serve` needs to publish sites: FastCGI processes, TLS certificates, and who listens where.

Face: `fastcgi.Server`, `certificates.Certificates`, `listeners.refusals`.
May import: as cli.
"""

from __future__ import annotations
