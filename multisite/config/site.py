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
    note = f"the value of [supervisor], {parent.default} where it has none"
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
        help="Working directory and import path of the site. A relative path counts from the folder of the real site "
        "file, not of the link in sites-enabled. With %HOST in it, each host that has such a folder is a site of its "
        "own, with processes of its own, and %HOST stands for it in all other values too; so does %USER for what the "
        "domain {user}.example.net captures.",
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
        note="production.ini, when location holds one and there is no application",
        example="production.ini",
    )
    mode: str = option(
        "choice",
        "auto",
        "Where the site runs: in-process shares the workers' interpreter, spawned has a process of its own, proxy "
        "relays to upstreams. auto has a process of its own, from which a site with share = yes moves into the workers "
        "while it is busy; a Moya project is in-process. in-process is a wish: a site that would harm its neighbours "
        "runs spawned.",
        choices=MODES,
    )
    share: bool = option(
        "boolean",
        "no",
        "Several copies of the site, and several calls of it at once, are fine: mode = auto may move it into the "
        "workers, when it has been seen to be clean, light and busy.",
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
        "Server that runs a spawned site; auto takes gunicorn for WSGI and an ASGI server for ASGI applications, and "
        "command where command is set.",
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
        help="Addresses that requests are relayed to with mode = proxy: http://HOST:PORT, uwsgi://HOST:PORT or "
        "unix:/PATH.",
        example="http://10.0.0.5:8000, unix:/run/x.sock, uwsgi://10.0.0.6:3031",
    )
    subscribe_to: tuple[str, ...] = option(
        "subscriptions",
        help="Fastrouters of uWSGI that the site is announced to, asleep or awake: ADDRESS:PORT:KEY[,MODIFIER1], or "
        "/PATH:KEY for a unix datagram socket. They reach it at its own socket, so they have to run on this machine; a "
        "site that uWSGI or a command runs needs protocol = uwsgi.",
        note="nobody",
        example="127.0.0.1:7000:blog.example.com",
    )
    processes: int = option(
        "integer",
        "1",
        "Number of processes of a spawned site. Where a file says it, it is a promise: the site stays out of workers "
        "that are more, or fewer.",
        limits=(1, 1024),
    )
    threads: int = option(
        "integer",
        "1",
        "Number of threads in each process of a spawned site. Where a file says it, it is a promise: the site stays "
        "out of workers that would call it otherwise.",
        limits=(1, 4096),
    )
    in_process_at_once: int = option(
        "integer",
        "4",
        "Number of requests that one worker answers at once in its own threads, for a site that shares the workers' "
        "interpreter. Further ones are answered by a process of the site's own. 0 sets no bound, nor does a number "
        "that is not below the server's threads.",
        limits=(0, 4096),
    )
    upload_rate: int = option(
        "size",
        "500",
        "Bytes of a request's body that have to come in a second, all in all, after the first 20 seconds. A slower "
        "client gets 408, and its connection is closed. Time in which the site does not take the body does not count. "
        "0 sets no bound.",
    )
    user: str = option(
        "text",
        help="User that a spawned site runs as, when the service runs as root; owner stands for the owner of location. "
        "root is refused unless [supervisor] allow_root is set.",
        note="the owner of location, or [supervisor] default_user where that is root",
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
        help="Number of files and sockets a process of a spawned site may have open.",
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
    start_timeout: float = inherited("start_timeout", "Time a process of the site may take until it is ready.", "30s")
    drain_timeout: float = inherited(
        "drain_timeout", "Time a process of the site has to finish its requests in flight before it is stopped.", "30s"
    )
    stop_timeout: float = inherited(
        "stop_timeout", "Time between asking a process of the site to end and killing it.", "10s"
    )
    request_timeout: float = inherited(
        "request_timeout",
        "Time the site has to answer one request; after it the client gets a 504 page. 0 waits without end.",
        "60s",
    )
    preload: str = inherited(
        "preload",
        "Auto: from their second start on, processes of the site are forked from a process that has its frameworks "
        "imported already. No: each is started by itself.",
        "no",
    )
    ignore_activity: tuple[str, ...] = option(
        "list",
        help="Paths, as shell patterns, whose requests neither wake nor keep awake a spawned site: health checks, for "
        "instance. While the site runs they are answered as usual; while it is stopped, with 503 and Retry-After.",
        example="/health, /metrics*",
    )
    ignore_agents: tuple[str, ...] = option(
        "list",
        help="Programs whose requests neither wake nor keep awake a spawned site, as in ignore_activity: parts of the "
        "User-Agent header, in any case, in which * stands for any text.",
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
        "tmp/always_restart.txt are watched in any case.",
        example="wsgi.py",
    )
    smoke_path: str = option(
        "target",
        help="Path, counted from mount, that a new version of the site has to answer before it takes the place of the "
        "one that serves. Without an answer, or with one of 500 and above, the old one stays.",
        note="a new version only has to start",
        example="/health",
    )
    warm: str = option(
        "warm",
        "never",
        "When a process of a spawned site runs without having been asked for. Always: as long as the supervisor runs, "
        "whatever idle_timeout says; the first request to any site starts that. Predicted: from two minutes before an "
        "hour of the day in which the site is used on most days. Never: from its first request on. Or hours of the "
        "week in local time: it runs from two minutes before them, and is not stopped as idle until they are over.",
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
        "What [env] does to the environment of a spawned site: extend adds to what every process gets (PATH, language, "
        "time zone, HOME, USER and those of the virtualenv), replace leaves that out: then there is nothing but the "
        "[env] of moya.conf and of the site.",
        choices=ENV_MODES,
    )
    pass_env: tuple[str, ...] = option(
        "list",
        help="Variables of the service's own environment that a spawned site gets, too, as names or shell patterns. "
        "PYTHONPATH and what belongs to the server or to multisite itself is never passed on.",
        example="DATABASE_URL, AWS_*",
    )
    static_index: tuple[str, ...] = option(
        "list",
        "index.html",
        "Files that answer for a folder of [static], the first that exists. Empty: a folder is a 404 page.",
        example="index.html, index.htm",
    )
    static_expires: tuple[str, ...] = option(
        "expiries",
        help="Time that static files stay fresh in a client's cache, sent as Cache-Control and Expires. A pattern "
        "before a duration makes it that of the files whose URL path or name matches; the first match decides. 0 sends "
        "no-cache.",
        note="none is said, and clients guess",
        example="/assets/* 365d, *.woff2 30d, 5m",
    )
    static_types: tuple[str, ...] = option(
        "types",
        help="Media types of file extensions, where the usual one is not meant.",
        example=".md text/plain, .glb model/gltf-binary",
    )
    static_links: str = option(
        "choice",
        "inside",
        "Symbolic links below a folder of [static] that are followed: inside, those that lead below it again; owner, "
        "those that lead to what belongs to the link's owner, and root's; all; or none.",
        choices=LINKS,
    )
    static_hidden: bool = option(
        "boolean",
        "no",
        "Serve static files whose path has a name that starts with a dot. /.well-known is served in any case.",
    )
    static_send: str = option(
        "sender",
        help="Have the front end send static files: the answer names the file's path in X-Sendfile, or, behind "
        "/PREFIX, in X-Accel-Redirect. Only a front end among trusted_proxies is answered so.",
        note="the server sends them",
        example="x-accel-redirect /files",
    )
    app_send: bool = option(
        "boolean",
        "no",
        "Let the application of a site with processes or upstreams of its own have the front end send files: its "
        "X-Accel-Redirect and X-Sendfile are passed on, else left out. It may then name any file that the front end is "
        "configured to send.",
    )
    env: dict[str, str] = option(
        "multiline",
        help="Environment variable of the site. A site with variables of its own never shares an interpreter.",
        section="env",
        any_key=True,
        example="DJANGO_SETTINGS_MODULE = blog.settings",
    )
    static: dict[str, tuple[str, ...]] = option(
        "list",
        help="URL prefix, counted from the site's mount, and the folders or the file that answer below it, relative to "
        "location; a missing file is a 404 page. The key check names folders that are tried before the application.",
        section="static",
        any_key=True,
        example="/static = /srv/blog/static",
    )
    allow: tuple[str, ...] = option(
        "networks",
        help="Addresses and networks of the clients that the site answers; all others get a 403 page. Behind a front "
        "end among trusted_proxies the client is the one that it names in X-Forwarded-For.",
        section="access",
        note="everybody",
        example="10.0.0.0/8, 2001:db8::/32, 127.0.0.1",
    )
    htpasswd: str = option(
        "path",
        help="File of users and passwords, as htpasswd writes it, relative to location. Only these users are answered, "
        "by HTTP's Basic authentication; the site sees the user's name and not the password. The workers' user has to "
        "be able to read it.",
        section="access",
        note="no password is asked for",
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
        "Lines of the access log: combined, which is Apache's with site, seconds and who answered at the end; json, "
        "one object a line; or a text with fields in braces, such as {remote}, {uri} and {http_x_request_id}.",
        section="logging",
        example="{iso} {remote} {method} {uri} {status} {bytes} {seconds}",
    )
    error_log: str = option(
        "log",
        help="File that gets the site's log records and the output of its processes, relative to location; or a syslog "
        "daemon.",
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
