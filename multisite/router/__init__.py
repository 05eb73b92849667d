"""Hosts that no site of this home claims: who answers them, and where.

Its face: `router.Router` for a worker, `server.SubscriptionServer` for the supervisor, `report.Report` for commands and
the statistics. It may import `errors`, `config`, `sites`, `control`, `proxy`, which relays to the nodes that are found
here, and `runner` for the format of its counts.
"""
