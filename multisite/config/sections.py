"""The sections of moya.conf, one dataclass each; their fields declare the options.

Durations are float seconds, sizes are bytes. None: not set.
"""

from __future__ import annotations

from dataclasses import dataclass

from multisite.config.option import option

_DAY = 86400
PUBLISHERS = ("gunicorn", "standalone", "granian", "waitress", "uwsgi", "fastcgi")
PORTS = {"fastcgi": 9000, "uwsgi": 3031}
DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True)
class ProjectsOptions:
    """Where the site files are."""

    read: tuple[str, ...] = option(
        "list",
        "sites-enabled/*.ini",
        "Site files to serve, as shell patterns relative to the folder of moya.conf. The patterns are read in this "
        "order, and the files of one pattern sorted by name.",
        example="../sites-enabled/*.ini",
    )
    logging: str = option(
        "path",
        "logging.ini",
        "File that sets up logging for the service itself, relative to the folder of moya.conf. Moya's dialect and the "
        "dialect of Python's logging.config.fileConfig are understood.",
    )


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The service as a whole."""

    runtime_dir: str = option(
        "path",
        help="Folder for sockets, locks and the scoreboard; it is made when first needed.",
        note="$XDG_RUNTIME_DIR/multisite, else /run/multisite for root, else a private folder in the temporary folder",
        example="/run/multisite",
    )
    state_dir: str = option(
        "path",
        help="Folder for data that outlives a restart of the machine: caches, verdicts and statistics.",
        note="$XDG_STATE_HOME/multisite, else /var/lib/multisite for root, else ~/.local/state/multisite",
        example="/var/lib/multisite",
    )
    temp_dir: str = option(
        "path",
        help="Folder that holds moyasrv/NAME.changes. Touching that file reloads the site NAME, as in Moya.",
        note="the system's temporary folder",
        example="/tmp",
    )
    default_site: str = option(
        "text",
        help="Name of the site that answers hosts no site claims. Without it such hosts get a 404 page.",
        example="welcome",
    )
    localhost_names: bool = option(
        "boolean",
        "no",
        "Let each site also answer NAME.localhost, where NAME is the site's name, unless a domain of some site "
        "matches. multisite serve does this by default on loopback addresses.",
    )
    host_header: str = option(
        "text",
        help="Request header that names the host instead of Host. It is believed only from trusted_proxies.",
        example="X-Canonical-Host",
    )
    trusted_proxies: tuple[str, ...] = option(
        "list",
        "127.0.0.1, ::1, unix",
        "Addresses and networks of the proxies whose X-Forwarded-* headers are believed; unix stands for every peer "
        "on a unix socket. From all other peers these headers are dropped, and what gunicorn took from them is "
        "undone. If the option is not set and root runs the supervisor, a peer on a loopback address, or on a unix "
        "socket that every account can connect to, has to be root, the workers' user, a web server's account or a "
        "machine of socket_group; otherwise every account of the machine is believed.",
        example="127.0.0.1, 10.0.0.0/8, unix",
    )
    status_domain: str = option(
        "text",
        help="Host of the status pages, with /status.json, /status.csv, /metrics and /health. Peers on the loopback "
        "interface or a unix socket may see them, unless a front end sent them, and clients that know status_token; "
        "/health answers everybody.",
        example="status.localhost",
    )
    status_token: str = option(
        "text",
        help="Secret with which other clients may see the status pages, as a bearer token or in the form of the page.",
        note="no other clients may",
        example="$STATUS_TOKEN",
    )
    status_admin: bool = option(
        "boolean",
        "no",
        "Put buttons on the status pages that restart, stop and disable sites and read the configuration again. "
        "Whoever may see the pages may use them.",
    )
    debug_memory: bool = option(
        "boolean",
        "no",
        "Accepted for compatibility with Moya, without effect; multisite status shows the memory of each site.",
    )


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """The processes of spawned sites."""

    max_backends: int = option(
        "integer",
        "50",
        "How many site processes may run at one time. When one more is needed, the idle process that is cheapest to "
        "restart is stopped; a busy one never is.",
        limits=(1, 100_000),
    )
    memory_budget: int | None = option(
        "size",
        help="Memory that all backends and preloaders together may use, as proportional set size. Above it, idle "
        "ones are stopped.",
        note="no limit",
        example="2G",
    )
    default_user: str = option(
        "text",
        "nobody",
        "When the service runs as root: the user of a spawned site whose location belongs to root. Other sites run as "
        "the owner of their location.",
    )
    user_policy: str = option(
        "text",
        "owner",
        "When the service runs as root: the user of a spawned site whose file names no user. owner: the owner of its "
        "location, or default_user if that is root, with the owner's groups. directory: user and group of the "
        "location. Or the name of an entry point in the group multisite.policies.",
    )
    allow_root: bool = option(
        "boolean",
        "no",
        "Let sites run as root. For containers and demonstrations.",
    )
    socket_group: str = option(
        "text",
        help="Group that may connect to the sites' sockets besides the service's own user: that of a front end that "
        "connects to them directly.",
        note="only that user may",
        example="www-data",
    )
    idle_timeout: float = option(
        "duration",
        "5m",
        "Time without a request after which a spawned site is stopped; its next request starts it again. 0 keeps it "
        "running. A site may set its own.",
        limits=(0, 366 * _DAY),
    )
    busy_timeout: float = option(
        "duration",
        "1h",
        "Time after its last request in which a spawned site that is at work is not stopped as idle: one that has sent "
        "BUSY=1 to NOTIFY_SOCKET, or that uses the processor. With 0 only requests count. A site may set its own.",
        limits=(0, 366 * _DAY),
    )
    start_timeout: float = option(
        "duration",
        "30s",
        "Time that a backend may take until it is ready; after it, the start has failed. A site may set its own.",
        limits=(0.1, _DAY),
    )
    drain_timeout: float = option(
        "duration",
        "30s",
        "Time that a backend has to finish its requests in flight before it is stopped. A site may set its own.",
        limits=(0, _DAY),
    )
    stop_timeout: float = option(
        "duration",
        "10s",
        "Time between asking a backend to end and killing it. A site may set its own.",
        limits=(0, _DAY),
    )
    request_timeout: float = option(
        "duration",
        "60s",
        "Time that a spawned site has to answer one request; after it, the client gets a 504 page. 0 waits without "
        "limit. A site may set its own.",
        limits=(0, _DAY),
    )
    preload: str = option(
        "choice",
        "auto",
        "With auto, processes of sites with the same interpreter and user are forked, from the second start on, from "
        "one process that has already imported their frameworks. With no, each process starts by itself. A site may "
        "set its own.",
        choices=("auto", "no"),
    )
    examine: bool = option(
        "boolean",
        "yes",
        "Examine what sites with mode = auto do to their process. A site with share = yes runs in its own process "
        "until the examination shows that it would not harm its neighbours, and until it is busy; then it moves into "
        "the workers. no: the workers import each site with share = yes at its first request.",
    )
    promote_after: int = option(
        "integer",
        "300",
        "Number of requests within a minute from which a site counts as busy and, with share = yes, moves into the "
        "workers, if it is clean and light.",
        limits=(1, 1_000_000),
    )
    share_memory: int = option(
        "size",
        "48M",
        "Memory that the import of a site may add to a process for the site to count as light.",
        limits=(0, 2**40),
    )
    share_import_time: float = option(
        "duration",
        "1s",
        "Time that the import of a site may take for the site to count as light; one request in each worker waits "
        "for it.",
        limits=(0, _DAY),
    )
    share_request_time: float = option(
        "duration",
        "0.5s",
        "Average duration of its requests above which a site moves out of the workers again, because it blocks their "
        "threads.",
        limits=(0, _DAY),
    )
    hand_over: str = option(
        "choice",
        "auto",
        "Whether a site's process gets the client's connection with the request, so that the worker is free at once. "
        "auto: only if the sites run as the service's own user and that is not root. yes: always; use it only behind "
        "front ends that open a connection for each request, since otherwise a site could read the next visitor's "
        "request. no: every answer is relayed.",
        choices=("auto", "yes", "no"),
    )


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """Nodes for hosts that no site claims; they speak uwsgi or http."""

    map: str = option(
        "path",
        help="Text file with a key and its nodes on each line: KEY NODE[,MODIFIER1][|NODE...], relative to the folder "
        "of moya.conf. A key is a host, perhaps with a port. The file is read again when it changes.",
        example="mappings.txt",
    )
    pattern: str = option(
        "path",
        help="Path of the socket of a key, in which %s stands for the key (uWSGI's fastrouter-use-pattern). A key "
        "whose socket does not exist is unknown.",
        example="/run/nodes/%s/uwsgi.sock",
    )
    base: str = option(
        "path",
        help="Folder that holds one socket for each key, named like it (uWSGI's fastrouter-use-base).",
        example="/run/nodes",
    )
    code: str = option(
        "text",
        help="Python function that is called with the key and returns its nodes as text, or None: FILE:FUNCTION, "
        "relative to the folder of moya.conf, or MODULE:FUNCTION (uWSGI's fastrouter-use-code-string).",
        example="mapper.py:get",
    )
    redis: str = option(
        "text", help="Redis server that holds the nodes of each key as text.", example="redis://127.0.0.1:6379/0"
    )
    sql: str = option("text", help="Database for query, as SQLAlchemy's URL.", example="sqlite:///map.db")
    query: str = option(
        "multiline",
        help="SQL statement; each row of the result begins with a node; :key stands for the key.",
        example="SELECT node FROM map WHERE domain = :key",
    )
    mappers: tuple[str, ...] = option(
        "list",
        help="Names of mappers from other packages, in the entry point group multisite.mappers.",
        example="consul",
    )
    to: tuple[str, ...] = option(
        "nodes",
        help="Nodes that share the requests of all other keys (uWSGI's fastrouter-to).",
        example="10.0.0.5:3031, http://10.0.0.6:8000",
    )
    fallback: tuple[str, ...] = option(
        "nodes",
        help="Nodes for keys that no mapper knows, and for keys none of whose nodes can be reached (uWSGI's "
        "fastrouter-fallback).",
        note="404 for an unknown key, 503 if no node can be reached",
        example="10.0.0.9:3031",
    )
    algorithm: str = option(
        "choice",
        "wrr",
        "How requests are distributed among the nodes of a key: in turn by weight, to the node with the fewest "
        "requests in flight (lrc), the same by weight (wlrc), or by the client's address (iphash).",
        choices=("wrr", "lrc", "wlrc", "iphash"),
    )
    subscription_server: tuple[str, ...] = option(
        "list",
        help="UDP addresses and paths of unix datagram sockets at which nodes announce the keys that they serve "
        "(uWSGI's subscription protocol). They are open while the supervisor is running.",
        example="127.0.0.1:7000, /run/multisite/subscribe.sock",
    )
    subscription_allow: tuple[str, ...] = option(
        "networks",
        help="Networks whose announcements are accepted without a signature.",
        note="127.0.0.0/8 and ::1; none with subscription_keys",
        example="10.0.0.0/24",
    )
    subscription_keys: str = option(
        "text",
        help="Digest and folder of the public keys that announcements are signed for, DIGEST:FOLDER; the key of "
        "example.com is in example.com.pem (uWSGI's subscriptions-sign-check).",
        example="SHA1:keys",
    )
    subscription_credentials: str = option(
        "path",
        help="Folder with a file for each key; on unix sockets, only the file's owner may announce the key (uWSGI's "
        "subscriptions-credentials-check).",
        example="/etc/moya/keys",
    )
    grace: float = option("duration", "30s", "Time for which a node that could not be reached is not used.")
    connect_timeout: float = option("duration", "5s", "Time to reach a node.")
    timeout: float = option(
        "duration", "60s", "Time without a sign of life from a node after which a request fails (fastrouter-timeout)."
    )
    check_path: str = option(
        "target",
        help="Path that is requested from the HTTP nodes of to and the upstreams of sites with mode = proxy, to "
        "learn whether they are alive. Any answer below 500 is good.",
        note="nodes are not checked",
        example="/health",
    )
    check_every: float = option("duration", "10s", "Time between two such checks.")
    stats: str = option(
        "text",
        help="Address or path of a unix socket at which the supervisor serves the Fastrouter's statistics as JSON.",
        example="127.0.0.1:9191",
    )
    provision: str = option(
        "text",
        help="MODULE:FUNCTION or FILE:FUNCTION, relative to the folder of moya.conf, or a command, called once for "
        "each unknown domain. It may write a site file, return a node (a command prints it), or refuse.",
        example="provision.py:domain",
    )
    provision_timeout: float = option("duration", "30s", "Longest time that requests to a new domain wait for it.")


@dataclass(frozen=True, slots=True)
class EventsOptions:
    """Who is told of failures, recoveries, deploys, and of sites that are enabled or disabled."""

    command: tuple[str, ...] = option(
        "argv",
        help="Command that runs for each event, never through a shell; it reads the event as JSON.",
        example="/usr/local/bin/notify",
    )
    url: str = option(
        "webhook",
        help="Address to which each event is posted as JSON; what fails is tried again.",
        example="https://hooks.example.com/x",
    )


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """The section [publisher]."""

    type: str = option(
        "choice",
        "gunicorn",
        "The server: gunicorn (also called standalone), granian and waitress speak HTTP, uwsgi speaks uWSGI's protocol "
        "and fastcgi speaks FastCGI with a web server in front.",
        choices=PUBLISHERS,
    )
    host: str = option("text", "127.0.0.1", "Address to listen at.")
    port: int | None = option(
        "integer",
        help="Port to listen at.",
        note="8000, for uwsgi 3031, for fastcgi 9000",
        example="8080",
        limits=(1, 65535),
    )
    socket: str = option(
        "path",
        help="Path of a unix socket to listen at, instead of host and port.",
        example="/run/multisite/publisher.sock",
    )
    umask: int | None = option(
        "octal", help="Umask with which fastcgi makes its socket, in octal.", note="inherited", example="0007"
    )
    processes: int | None = option(
        "integer",
        help="Processes of gunicorn, granian and uwsgi.",
        note="one for each processor, 4 at most",
        example="2",
        limits=(1, 1024),
    )
    threads: int = option("integer", "8", "Threads of each process; fastcgi has one.", limits=(1, 4096))
    min_children: int = option(
        "integer", "1", "Fewest idle processes that fastcgi keeps; uwsgi keeps as many processes.", limits=(1, 1024)
    )
    max_spare: int = option("integer", "5", "Most idle processes that fastcgi keeps.", limits=(1, 1024))
    max_children: int | None = option(
        "integer",
        help="Most processes of fastcgi. With it, uwsgi runs between min_children and this many, as needed.",
        note="50",
        example="20",
        limits=(1, 1024),
    )
    max_requests: int = option(
        "integer",
        "0",
        "Number of requests after which a process is replaced; 0: never. granian and waitress have no such limit.",
        limits=(0, 10**9),
    )
    debug: bool = option("boolean", "no", "As serve --debug; for gunicorn, on loopback addresses only.")
    tls: str = option("path", help="Folder of certificates, as for serve --tls; for gunicorn.", example="/etc/tls")

    @property
    def bound_port(self) -> int:
        """The port to listen at."""
        return self.port or PORTS.get(self.type, DEFAULT_PORT)

    @property
    def address(self) -> str:
        """``HOST:PORT`` or the path of a socket."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.socket or f"{host}:{self.bound_port}"
