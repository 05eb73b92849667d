"""What the supervisor has to do with other machines: it announces this one, and learns of the others.

Face: `membership`.
"""
