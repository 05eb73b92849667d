"""What every gunicorn of a site is told: read by the site's own, so it knows nothing of ours.

Settings that an older gunicorn does not have are passed over by it.
"""

control_socket_disable = True  # all gunicorns of a user would open the same one
accesslog = None
errorlog = "-"
