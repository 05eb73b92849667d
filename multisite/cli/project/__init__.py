"""What a folder of somebody's code contains: guessed, looked over and pointed at."""

from __future__ import annotations
