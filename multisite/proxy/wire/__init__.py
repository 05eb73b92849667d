"""What is said to a backend and what it answers, as bytes: no socket, no clock."""
