"""Settings for every gunicorn that a site brings along; that gunicorn reads them, so they import nothing of ours.

An older gunicorn ignores settings that it does not know.
"""

control_socket_disable = True  # all gunicorns of a user would open the same one
accesslog = None
errorlog = "-"
