"""A count of visits in a session, which lives in a Redis server rather than in this process."""

import os

from flask import Flask, session
from flask_session import Session
from redis import Redis, RedisError

URL = os.environ["SESSIONS_URL"]
if URL.startswith("$"):  # nobody has set it
    URL = "redis://127.0.0.1:6379/0"

app = Flask(__name__)
app.config.update(
    SESSION_TYPE="redis",
    SESSION_REDIS=Redis.from_url(URL, socket_timeout=5),
    SESSION_PERMANENT=False,  # the cookie ends with the browser, and
    PERMANENT_SESSION_LIFETIME=3600,  # the server forgets an hour (in seconds) after the last visit
)
Session(app)


@app.get("/")
def count():
    """Count a visit."""
    session["visits"] = session.get("visits", 0) + 1
    return f"Visit {session['visits']}, answered by process {os.getpid()}.\n", {"Content-Type": "text/plain"}


@app.post("/forget")
def forget():
    """Begin anew."""
    session.clear()
    return "Forgotten.\n", {"Content-Type": "text/plain"}


class Reachable:
    """A page in place of a traceback where there is no Redis server."""

    def __init__(self, wsgi):
        self.wsgi = wsgi

    def __call__(self, environ, start_response):
        """Answer a request (PEP 3333)."""
        try:
            app.config["SESSION_REDIS"].ping()
        except RedisError as error:
            text = f"Sessions are kept in Redis, and there is none at {URL}: {error}\n"
            start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Retry-After", "5")])
            return [text.encode()]
        return self.wsgi(environ, start_response)


app.wsgi_app = Reachable(app.wsgi_app)
