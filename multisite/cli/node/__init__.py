"""Commands about this machine as one of several that serve the same sites.

Face: the commands in `multisite.cli.COMMANDS`.
May import: everything.
"""
