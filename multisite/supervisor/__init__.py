"""The supervisor: one process per home that starts, watches and stops the backends of spawned sites.

`lifecycle` and `planner` decide and do no input or output; `process` is the one place that forks;
`main` is the loop that joins them. Workers and commands talk to it through `client`.
"""
