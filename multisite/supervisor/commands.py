"""The commands that clients of the control socket may send, and the answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from multisite import __version__
from multisite.logs import incidents
from multisite.supervisor.accounts import Accounts, by_session, weighed
from multisite.supervisor.control import Answer, Caller
from multisite.supervisor.lifecycle import State
from multisite.supervisor.process import kernel
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.promotion import Promotion
from multisite.supervisor.provisions import Provisions
from multisite.supervisor.site.context import Context
from multisite.supervisor.site.failures import Unavailable
from multisite.supervisor.site.parts import NO_CONNECTIONS
from multisite.supervisor.site.supervised import SupervisedSite
from multisite.supervisor.sites import SupervisedSites
from multisite.supervisor.wakes import Wakes

AWAKE = (State.STARTING, State.RUNNING)  # a request to a draining one could start a successor


class Commands:
    """Answers requests; the method `_do_NAME` answers the command NAME.

    Args:
        context: its servers are those that ask for a site's socket.
        sites: the subject of the requests.
        promotion: moves them into the workers and out of them.
        look_soon: looks at the configuration at the next turn.
        begin_upgrade: tries the new program, and answers the connection later.
        started: when this supervisor was.
        announced: describes the nodes that announced themselves.
        provisions: asks about unknown domains.
        cluster: describes this machine among others.
    """

    def __init__(
        self,
        context: Context,
        sites: SupervisedSites,
        promotion: Promotion,
        look_soon: Callable[[], None],
        begin_upgrade: Callable[[Caller], None],
        started: float,
        announced: Callable[[], Answer],
        provisions: Provisions,
        cluster: Callable[[], Answer],
    ) -> None:
        self._announced, self._provisions, self._cluster = announced, provisions, cluster
        self._wakes = Wakes()
        self._context, self._sites, self._promotion = context, sites, promotion
        self._look_soon, self._begin_upgrade, self._started = look_soon, begin_upgrade, started

    def answer(self, request: Answer, connection: Caller) -> Answer | None:
        """Return the answer to one request; None: the command sends its answers itself."""
        home = str(request.get("home") or self._sites.home.path)
        if "\0" in home or os.path.realpath(home) != os.path.realpath(self._sites.home.path):
            return {"error": self._context.rundir.other_home().reason, "status": 503}
        handler = getattr(self, f"_do_{request.get('do')}", None)
        if not handler:
            return {"error": f"there is no command {request.get('do')!r}", "status": 400}
        try:
            answer: Answer | None = handler(request, connection)
            return answer
        except Unavailable as error:
            wait = max(1, round(error.retry_after))
            return {"error": error.reason, "status": 503, "retry_after": wait, "incident": error.incident}
        except OSError as error:
            return {"error": f"{error.filename or request['do']}: {error.strerror}", "status": 503, "retry_after": 30}
        except (KeyError, ValueError):  # a name with a NUL is not a name, nor a path
            return {"error": f"there is no site {request.get('site')!r}", "status": 404}

    def _do_ping(self, _request: Answer, _connection: Caller) -> Answer:
        return {"pid": os.getpid(), "home": self._sites.home.path}

    def _do_nodes(self, _request: Answer, _connection: Caller) -> Answer:
        return {**self._announced(), "provisioned": self._provisions.describe()}

    def _do_cluster(self, _request: Answer, _connection: Caller) -> Answer:
        return self._cluster()

    def _do_provision(self, request: Answer, connection: Caller) -> Answer | None:
        self._context.servers.register(connection.pid, request.get("head_limits"))
        try:
            return self._provisions.ask(str(request.get("domain")), self._sites.home, connection)
        except ValueError:
            return {"error": f"{request.get('domain')!r} is not a domain", "status": 400}

    def _do_meet(self, request: Answer, connection: Caller) -> Answer:
        self._context.servers.register(connection.pid, request.get("head_limits"))
        return {"pid": os.getpid()}

    def _do_ensure(self, request: Answer, connection: Caller) -> Answer | None:
        self._context.servers.register(connection.pid, request.get("head_limits"))
        supervised = self._sites.supervise(*_asked(request))
        self._sites.heed(supervised)
        if supervised.site.exclusive and self._context.leases:
            return self._context.leases.place(supervised, connection, bool(request.get("anew")))
        return {"socket": supervised.ensure()}

    def _do_wake(self, request: Answer, connection: Caller) -> Answer:
        """Start a site as a request at its socket would, if its client may, and tell whether it is up."""
        self._context.servers.register(connection.pid, request.get("head_limits"))
        supervised = self._sites.supervise(*_asked(request))
        self._sites.heed(supervised)
        is_up = supervised.state is State.RUNNING
        if not is_up:
            supervised.ensure()
            most, client = supervised.site.wakes_per_minute, request.get("client")
            if most and client is not None and supervised.state not in AWAKE and not supervised.is_waiting:
                pause = self._wakes.take(str(client), most, self._context.loop.now())
                if pause:
                    reason = f"this address has started {most} sites within a minute"
                    return {"error": reason, "status": 429, "retry_after": pause}
            if not supervised.backends.alive and not supervised.is_waiting:
                supervised.want()
        return {"up": is_up}

    def _do_awake(self, request: Answer, _connection: Caller) -> Answer:
        """Tell whether a request that does not count as use of the site would find a process."""
        sites = self._sites.asked_for(*_asked(request))
        return {"awake": any(one.state in AWAKE for one in sites)}

    def _do_trouble(self, request: Answer, _connection: Caller) -> Answer:
        """Return the incident of a process that has just ended by itself, for a worker that lost a request by it."""
        now, asked_for = self._context.loop.now(), self._sites.asked_for(*_asked(request))
        ended = [one.failures.just_now(now, is_alive=bool(one.backends.alive)) for one in asked_for]
        return next(({"incident": one.incident, "failure": one.failure} for one in ended if one), {"incident": ""})

    def _do_hung(self, request: Answer, _connection: Caller) -> Answer:
        """Take note of the incident that a worker has shown to a visitor because a process does not answer."""
        incident = str(request.get("incident"))
        if not incidents.is_incident(incident):
            return {"error": "this is not an incident", "status": 400}
        for one in self._sites.asked_for(*_asked(request)):
            one.failures.kept_waiting = incident, self._context.loop.now()
        return {"done": "its end will be reported as that incident"}

    def _do_status(self, _request: Answer, _connection: Caller) -> Answer:
        now, connected = self._context.loop.now(), self._sites.connections()
        accounts, members = self._sites.accounts, by_session()
        return {
            "supervisor": {
                "pid": os.getpid(),
                "version": __version__,
                "home": self._sites.home.path,
                "runtime_dir": self._context.rundir.path,
                "uptime": round(now - self._started, 3),
                "servers": self._context.servers.pids,
                "backends": sum(len(one.pids) for one in self._sites.values()),
                "max_backends": self._sites.home.supervisor.max_backends,
            },
            "preloaders": self._context.preloaders.describe(),
            "sites": {
                name: {
                    **describe(one, accounts, connected.get(one.listener.path, NO_CONNECTIONS), members, now),
                    "lease": one.lease.as_dict(self._context.leases.node if self._context.leases else ""),
                }
                for name, one in self._sites.items()
            },
        }

    def _do_restart(self, request: Answer, _connection: Caller) -> Answer:
        sites = self._sites.renewed(*_asked(request))  # try an edit of a moment ago, too
        starts = bool(request.get("start"))  # start one process if none runs: the caller waits for the outcome
        if starts and not sites and not self._sites.is_hosting(*_asked(request)):
            sites = [self._sites.supervise(*_asked(request))]
        for supervised in sites:
            supervised.replace("restart", starts=starts)
        if not sites:
            return {"done": "it was not running", "deploys": {}}
        running = {one.site.name: one.deploys.last.number for one in sites if one.pids or one.deploys.is_trial}
        return {"done": "restarting" if running else "it starts at its next request", "deploys": running}

    def _do_deploys(self, request: Answer, _connection: Caller) -> Answer:
        """Return the outcome of the last attempts to start a new version."""
        sites = self._sites.asked_for(*_asked(request))
        return {"deploys": {one.site.name: one.deploys.last.as_dict() for one in sites}}

    def _do_mended(self, request: Answer, _connection: Caller) -> Answer:
        """Forget why a site failed: a separate start of it has succeeded since."""
        for supervised in self._sites.renewed(*_asked(request)):
            supervised.failures.mended()
            if supervised.journey and supervised.journey.failure:
                supervised.journey = None  # that start failed
        return {"done": "earlier failures are forgotten"}

    def _do_examine(self, request: Answer, connection: Caller) -> Answer:
        self._context.servers.register(connection.pid)
        self._promotion.examine(str(request["site"]))
        return {"done": "its newest code will be examined"}

    def _do_refuse(self, request: Answer, _connection: Caller) -> Answer:
        self._promotion.refuse(str(request["site"]), str(request.get("version")), str(request.get("why")))
        return {"done": "it stays in its own process"}

    def _do_stop(self, request: Answer, _connection: Caller) -> Answer:
        sites = self._sites.asked_for(*_asked(request))
        pids = [pid for one in sites for pid in one.pids]
        why = str(request.get("why") or "")[:100]  # without it, the caller wants no process until the next request
        for supervised in sites:
            supervised.stop(why or "asked", rest=not why)
        return {"done": "stopping" if pids else "it was not running", "pids": pids}

    def _do_reload(self, _request: Answer, _connection: Caller) -> Answer:
        self._look_soon()
        return {"done": "reading the configuration"}

    def _do_upgrade(self, _request: Answer, connection: Caller) -> None:
        self._begin_upgrade(connection)

    def _do_logs(self, request: Answer, connection: Caller) -> Answer | None:
        supervised = self._sites.supervise(*_asked(request))
        journey = supervised.journey
        lines = list(journey.tail.lines) if journey else []
        if not request.get("follow"):
            return {"lines": lines}
        connection.send({"lines": lines})
        connection.follows = supervised.site.name
        self.follow(connection)
        return None

    def follow(self, connection: Caller) -> None:
        """Send the output of the site that a connection follows."""
        supervised = self._sites.get(connection.follows)
        if not supervised:
            return

        def tell(new: list[str]) -> None:
            connection.send({"lines": new})

        supervised.log.followers.append(tell)
        connection.on_close.append(lambda: supervised.log.followers.remove(tell))


def _asked(request: Answer) -> tuple[str, str]:
    """Return the site that a request names, and the host of its instance if it names one."""
    return str(request["site"]), str(request.get("host") or "")


def describe(
    supervised: SupervisedSite,
    accounts: Accounts,
    connected: Connections,
    members: Mapping[int, Iterable[int]],
    now: float,
) -> dict[str, Any]:
    """Return one site for JSON: memory is bytes, times are seconds from now, those of `Tally` Unix seconds.

    Args:
        supervised: the site.
        accounts: what the site used before.
        connected: its connections, as the kernel knows them.
        members: the processes of each session; their memory counts for the backend that began it.
        now: monotonic seconds.
    """
    figures = supervised.figures()
    cpu = sum(kernel.cpu(member) for pid in supervised.pids for member in members.get(pid, ()))
    since = min(supervised.backends.serving_since, default=None)
    journey = supervised.journey
    failure = supervised.failures.last or (journey if journey and journey.failure else None)
    return {
        "state": supervised.state.value,
        "host": supervised.site.host,
        "template": supervised.site.template,
        "pids": supervised.pids,
        "socket": supervised.listener.path if supervised.listener.is_open else None,
        # The processes' own counts, else the open connections that the kernel knows.
        "in_flight": connected.open if figures.in_flight is None else figures.in_flight,
        "relayed_now": figures.relayed_now,  # of those, the ones that a worker counts
        "requests_in_flight": [list(flight) for flight in supervised.scoreboard.flights(supervised.pids)],
        "waiting": connected.waiting,
        **accounts.total(supervised, cpu).as_dict(),
        "up_since": None if since is None else round(time.time() - (now - since), 3),
        "memory": sum(weighed(supervised.pids, members).values()),
        "idle": round(now - supervised.activity.last_use, 3) if supervised.state is State.RUNNING else None,
        "working": supervised.work.is_working and supervised.state is State.RUNNING,
        "backends": [
            {"pid": b.pid, "state": b.state.value, "seconds": round(now - b.since, 3), "reason": b.reason}
            for b in supervised.backends
        ],
        "journey": journey.as_dict() if journey else None,
        "failure": failure.as_dict() if failure else None,
        "replace_failure": supervised.failures.replacement,
        "deploy": supervised.deploys.last.as_dict(),
    }
