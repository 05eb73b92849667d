"""One process per home that starts, watches and stops backends.

Face: `run.run`, and ``python -m multisite.supervisor``.
May import: errors, config, logs, sites, control, proxy, the formats of runner.
"""
