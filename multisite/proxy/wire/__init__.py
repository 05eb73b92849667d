"""Requests to a backend and its answers, as bytes: no socket, no clock."""
