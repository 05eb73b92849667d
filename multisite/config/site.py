"""A site with everything its file may say, typed; the fields declare the options.

Durations are float seconds, sizes are bytes, paths are absolute. None: not set.
"""

# ruff: noqa: RUF009 (every option is declared by a call)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from multisite.config.availability import AvailabilityOptions
from multisite.config.option import Option, option
from multisite.config.sections import SupervisorOptions

MODES = ("auto", "in-process", "spawned", "proxy")
SERVERS = ("auto", "gunicorn", "asgi", "uwsgi", "granian", "command")
PROTOCOLS = ("http", "uwsgi")
ENV_MODES = ("extend", "replace")
#: options that are a promise where a file says them
PROMISES = ("processes", "threads")
LINKS = ("inside", "owner", "none", "all")


def inherited(key: str, help: str, example: str) -> Any:
    """Declare a site's own setting of an option of [supervisor]."""
    parent: Option = SupervisorOptions.__dataclass_fields__[key].metadata["option"]
    note = f"the value of [supervisor], else {parent.default}"
    more = {"choices": parent.choices, "limits": parent.limits}
    return option(parent.kind, parent.default, help, note=note, example=example, **more)


@dataclass(frozen=True)
class Site(AvailabilityOptions):
    """One site, with [defaults] and [supervisor] of moya.conf merged in.

    Attributes:
        file: path of the site file, as globbed.
        overlay: sections of a Moya project's settings, as text.
        env: the site's own [env] only.
        host: which host this is the instance of its hosting site for, "" for any other site; see `config.hosting`.
        template: the name of that hosting site.
        promised: the `PROMISES` that its file or [defaults] has.
    """

    file: str
    name: str = option(
        "name",
        help="Name of the site in commands, logs and sockets: 1 to 64 letters, digits, '.', '_' and '-'.",
        note="the file's name without .ini",
        example="blog",
    )
    domains: tuple[str, ...] = option(
        "list",
        help="Domains the site answers: exact ones, or patterns with *, {name} (one label, captured) and {*name} (any "
        "text, captured). The first is the canonical one.",
        example="blog.example.com, *.blog.example.org, {user}.example.net",
    )
    mount: str = option(
        "mount",
        "/",
        "Path prefix below which the site answers, so that several sites may share a domain. It becomes SCRIPT_NAME.",
        example="/api",
    )
    location: str = option(
        "path",
        help="Working directory and import path of the site. A relative path starts at the folder of the real site "
        "file, not of the link in sites-enabled. With %HOST in it, each host that has such a folder is a separate "
        "site with its own processes, and %HOST stands for it in all other values, too; so does %USER for the part "
        "that the domain {user}.example.net captures.",
        example="/srv/blog",
    )
    application: str = option(
        "application",
        help="What serves the site: module:callable, module:factory(), path/to/file.wsgi, paste:FILE.ini#name, "
        "django:project.settings, asgi:module:app, or the name of an entry point in the group multisite.loaders.",
        example="blog.wsgi:application",
    )
    ini: tuple[str, ...] = option(
        "list",
        help="Settings files of a Moya project, relative to location; the first that exists is used.",
        note="production.ini, if the location has one and there is no application",
        example="production.ini",
    )
    mode: str = option(
        "choice",
        "auto",
        "Where the site runs: in-process shares the workers' interpreter, spawned has its own process, proxy relays "
        "to upstreams. auto has its own process, from which a site with share = yes moves into the workers while it "
        "is busy; a Moya project is in-process. in-process is a preference: a site that would harm its neighbours "
        "runs spawned.",
        choices=MODES,
    )
    share: bool = option(
        "boolean",
        "no",
        "Whether several copies of the site, and several simultaneous calls of it, are safe: then mode = auto may "
        "move it into the workers, after it has proved to be clean, light and busy.",
    )
    exclusive: bool = option(
        "boolean",
        "no",
        "Whether the site must never run twice, on whichever nodes: because of SQLite or a scheduler, for instance. It "
        "runs in its own process on the node that has its lease in the registry of [cluster] url.",
    )
    nodes: tuple[str, ...] = option(
        "machines", help="Which of [cluster] nodes run it; others answer 421.", note="all", example="10.0.0.1:8000"
    )
    python: str = option(
        "path",
        help="Virtualenv or interpreter of the site, relative to location. A site that names one runs spawned.",
        note="the service's own interpreter",
        example="/srv/blog/.venv",
    )
    server: str = option(
        "choice",
        "auto",
        "Server that runs a spawned site; auto is gunicorn for WSGI and an ASGI server for ASGI applications, and "
        "command if command is set.",
        choices=SERVERS,
    )
    command: tuple[str, ...] = option(
        "argv",
        help="Program that serves the site, with its arguments; no shell is involved. %HOST, %PORT, %UID, %GID and "
        "%SOCKET are replaced in each argument.",
        example="/srv/blog/bin/server --host %HOST --port %PORT",
    )
    protocol: str = option(
        "choice", "http", "Protocol spoken on the socket of a spawned site: http or uwsgi.", choices=PROTOCOLS
    )
    upstreams: tuple[str, ...] = option(
        "list",
        help="Addresses to which mode = proxy relays requests: http://HOST:PORT, uwsgi://HOST:PORT or unix:/PATH.",
        example="http://10.0.0.5:8000, unix:/run/x.sock, uwsgi://10.0.0.6:3031",
    )
    subscribe_to: tuple[str, ...] = option(
        "subscriptions",
        help="Fastrouters of uWSGI to which the site is announced, whether it is running or not: "
        "ADDRESS:PORT:KEY[,MODIFIER1], or /PATH:KEY for a unix datagram socket. They connect to the site's own "
        "socket, so they have to run on this machine; a site that uWSGI or a command runs needs protocol = uwsgi.",
        note="none",
        example="127.0.0.1:7000:blog.example.com",
    )
    processes: int = option(
        "integer",
        "1",
        "Number of processes of a spawned site. If a file sets it, it is a promise: the site stays out of the "
        "workers if their number differs.",
        limits=(1, 1024),
    )
    threads: int = option(
        "integer",
        "1",
        "Number of threads in each process of a spawned site. If a file sets it, it is a promise: the site stays out "
        "of workers that would call it from another number of threads.",
        limits=(1, 4096),
    )
    in_process_at_once: int = option(
        "integer",
        "4",
        "Number of requests that one worker answers at once in its own threads, for a site that shares the workers' "
        "interpreter. A process of the site answers further ones. 0 sets no limit, and neither does a number that is "
        "not below the server's threads.",
        limits=(0, 4096),
    )
    upload_rate: int = option(
        "size",
        "500",
        "Bytes of a request's body that have to arrive per second on average, after the first 20 seconds. A slower "
        "client gets 408, and its connection is closed. Time in which the site does not read the body does not "
        "count. 0 sets no limit.",
    )
    user: str = option(
        "text",
        help="User that a spawned site runs as, when the service runs as root; owner stands for the owner of location. "
        "root is refused unless [supervisor] allow_root is set.",
        note="the owner of location, or [supervisor] default_user if that is root",
        example="blog",
    )
    group: str = option(
        "text",
        help="Group that a spawned site runs as, when the service runs as root.",
        note="the user's own group",
        example="blog",
    )
    umask: int | None = option(
        "octal",
        help="Umask of the site, in octal, wherever it runs.",
        note="inherited from the service",
        example="0027",
    )
    chroot: str = option(
        "path",
        help="Folder that becomes the root folder of a spawned site, when the service runs as root.",
        example="/srv/jail",
    )
    max_requests: int = option(
        "integer",
        help="Number of requests after which a process of a spawned site is replaced. 0 never replaces it.",
        default="0",
        example="10000",
        limits=(0, 10**12),
    )
    memory_limit: int | None = option(
        "size",
        help="Memory that one process of a spawned site may use; a process above it is replaced.",
        note="no limit",
        example="300M",
        limits=(2**20, 2**50),
    )
    nice: int = option(
        "integer",
        "0",
        "Scheduling priority of a spawned site: 19 yields to everybody, and below 0 needs root.",
        example="5",
        limits=(-20, 19),
    )
    nofile: int | None = option(
        "integer",
        help="Number of files and sockets that a process of a spawned site may have open.",
        note="inherited from the service",
        example="1024",
        limits=(16, 10**8),
    )
    idle_timeout: float = inherited(
        "idle_timeout", "Time without a request after which the site's process is stopped. 0 keeps it running.", "15m"
    )
    busy_timeout: float = inherited(
        "busy_timeout",
        "Time after its last request in which the site is not stopped as idle while it is at work: it has sent BUSY=1 "
        "to NOTIFY_SOCKET, or uses the processor. With 0 only requests count.",
        "8h",
    )
    start_timeout: float = inherited(
        "start_timeout", "Time that a process of the site may take until it is ready.", "30s"
    )
    drain_timeout: float = inherited(
        "drain_timeout",
        "Time that a process of the site has to finish its requests in flight before it is stopped.",
        "30s",
    )
    stop_timeout: float = inherited(
        "stop_timeout", "Time between asking a process of the site to end and killing it.", "10s"
    )
    request_timeout: float = inherited(
        "request_timeout",
        "Time that the site has to answer one request; after it, the client gets a 504 page. 0 waits without limit.",
        "60s",
    )
    preload: str = inherited(
        "preload",
        "With auto, processes of the site are forked, from the second start on, from a process that has already "
        "imported its frameworks. With no, each process starts by itself.",
        "no",
    )
    ignore_activity: tuple[str, ...] = option(
        "list",
        help="Paths, as shell patterns, whose requests neither start a spawned site nor keep it running: health "
        "checks, for instance. While the site is running, it answers them as usual; while it is stopped, the answer "
        "is 503 with Retry-After.",
        example="/health, /metrics*",
    )
    ignore_agents: tuple[str, ...] = option(
        "list",
        help="Programs whose requests neither start a spawned site nor keep it running, as in ignore_activity: parts "
        "of the User-Agent header, in upper or lower case, in which * stands for any text.",
        example="bot, crawler, UptimeRobot, kube-probe",
    )
    max_waiting: int = option(
        "integer",
        "100",
        "Number of requests that may wait for a process of the site. One more gets a 503 page with Retry-After.",
        limits=(0, 65535),
    )
    touch_reload: tuple[str, ...] = option(
        "list",
        help="Files, relative to location, whose change reloads the site; the site file, tmp/restart.txt and "
        "tmp/always_restart.txt are always watched.",
        example="wsgi.py",
    )
    smoke_path: str = option(
        "target",
        help="Path, counted from mount, that a new version of the site has to answer before it replaces the one that "
        "serves. Without an answer, or with a status of 500 and above, the old one stays.",
        note="a new version only has to start",
        example="/health",
    )
    warm: str = option(
        "warm",
        "never",
        "When a spawned site runs without a request. never: not before its first request. always: as long as the "
        "supervisor runs, regardless of idle_timeout; the first request to any site starts the supervisor. predicted: "
        "from two minutes before each hour of the day in which the site is used on most days. Or hours of the week in "
        "local time: from two minutes before they begin until they end, even if it is idle.",
        example="mon-fri 8-18, sat 10-14",
    )
    redirect_to_canonical: bool = option(
        "boolean",
        "no",
        "Redirect requests for any other domain of the site to its first domain.",
    )
    env_mode: str = option(
        "choice",
        "extend",
        "What [env] does to the environment of a spawned site: extend adds to the variables that every process gets "
        "(PATH, language, time zone, HOME, USER and those of the virtualenv), replace omits them: then there is only "
        "the [env] of moya.conf and of the site.",
        choices=ENV_MODES,
    )
    pass_env: tuple[str, ...] = option(
        "list",
        help="Variables of the service's own environment that a spawned site gets, too, as names or shell patterns. "
        "PYTHONPATH and variables of the server or of multisite itself are never passed on.",
        example="DATABASE_URL, AWS_*",
    )
    static_index: tuple[str, ...] = option(
        "list",
        "index.html",
        "Files that answer for a folder of [static]; the first that exists is served. Empty: a folder is a 404 page.",
        example="index.html, index.htm",
    )
    static_expires: tuple[str, ...] = option(
        "expiries",
        help="Time that static files stay fresh in a client's cache, sent as Cache-Control and Expires. A duration "
        "after a pattern applies to files whose URL path or name matches it; the first match decides. 0 sends "
        "no-cache.",
        note="none is sent, and clients guess",
        example="/assets/* 365d, *.woff2 30d, 5m",
    )
    static_types: tuple[str, ...] = option(
        "types",
        help="Media types of file extensions that differ from the usual ones.",
        example=".md text/plain, .glb model/gltf-binary",
    )
    static_links: str = option(
        "choice",
        "inside",
        "Which symbolic links below a folder of [static] are followed: inside, those that lead to a place below it; "
        "owner, those whose target belongs to the link's owner, and root's; all; or none.",
        choices=LINKS,
    )
    static_hidden: bool = option(
        "boolean",
        "no",
        "Serve static files whose path has a name that starts with a dot. /.well-known is served in any case.",
    )
    static_send: str = option(
        "sender",
        help="Let the front end send static files: the answer names the file's path in X-Sendfile, or, after "
        "/PREFIX, in X-Accel-Redirect. Only a front end among trusted_proxies gets such an answer.",
        note="the server sends them",
        example="x-accel-redirect /files",
    )
    app_send: bool = option(
        "boolean",
        "no",
        "Let the application of a site with its own processes or upstreams make the front end send files: its "
        "X-Accel-Redirect and X-Sendfile are passed on, else removed. It may then name any file that the front end "
        "is configured to send.",
    )
    env: dict[str, str] = option(
        "multiline",
        help="Environment variable of the site. A site with its own variables never shares an interpreter.",
        section="env",
        any_key=True,
        example="DJANGO_SETTINGS_MODULE = blog.settings",
    )
    static: dict[str, tuple[str, ...]] = option(
        "list",
        help="URL prefix, counted from the site's mount, and the folders or the file that are served below it, "
        "relative to location; a missing file is a 404 page. The key check names folders that are searched before "
        "the application.",
        section="static",
        any_key=True,
        example="/static = /srv/blog/static",
    )
    allow: tuple[str, ...] = option(
        "networks",
        help="Addresses and networks of the clients that may use the site; all others get a 403 page. Behind a front "
        "end among trusted_proxies, the client is the one that it names in X-Forwarded-For.",
        section="access",
        note="everybody",
        example="10.0.0.0/8, 2001:db8::/32, 127.0.0.1",
    )
    htpasswd: str = option(
        "path",
        help="File of users and passwords, as htpasswd writes it, relative to location. Only these users may use the "
        "site, with HTTP's Basic authentication; the site gets the user's name but not the password. The workers' "
        "user has to be able to read the file.",
        section="access",
        note="no password is required",
        example="/etc/moya/%(name)s.htpasswd",
    )
    access_log: str = option(
        "log",
        help="File that gets one line for each request of the site, relative to location; or a syslog daemon.",
        section="logging",
        key="access",
        example="/var/log/multisite/%(name)s.access.log",
    )
    access_format: str = option(
        "format",
        "combined",
        "Lines of the access log: combined, which is Apache's with site, seconds and the kind of answer at the end; "
        "json, one object a line; or a text with fields in braces, such as {remote}, {uri} and {http_x_request_id}.",
        section="logging",
        example="{iso} {remote} {method} {uri} {status} {bytes} {seconds}",
    )
    error_log: str = option(
        "log",
        help="File of the site's log records and its processes' output, relative to location; or a syslog daemon.",
        section="logging",
        key="error",
        example="/var/log/multisite/%(name)s.error.log",
    )
    overlay: dict[str, dict[str, str]] = field(default_factory=dict)
    host: str = ""
    template: str = ""
    promised: tuple[str, ...] = ()

    @property
    def is_moya(self) -> bool:
        """Whether it is a Moya project, as one is written for Moya's own service."""
        return bool(self.ini) and not (self.application or self.command or self.upstreams)

    @property
    def entry_name(self) -> str:
        """Name that the site's file has among the enabled ones."""
        return self.template or self.name

    @property
    def canonical_host(self) -> str:
        """The first exact domain, or the name where there is none."""
        return next((domain for domain in self.domains if not set(domain) & set("*{}")), self.name)

    @property
    def is_restricted(self) -> bool:
        """Whether each request is to be checked before anything of the site answers."""
        return bool(self.allow or self.htpasswd)

    @property
    def is_ours(self) -> bool:
        """Whether its own processes, if it has any, are our runner's."""
        return self.server in ("auto", "asgi") and not self.command

    @property
    def files_only(self) -> bool:
        """Whether the site has static files and nothing to run."""
        return bool(self.static) and not (self.application or self.command or self.upstreams or self.ini)
