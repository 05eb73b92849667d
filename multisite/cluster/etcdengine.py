"""A registry in etcd, through its HTTP gateway. All keys begin with ``/multisite/NAME/``.

| key | what |
|---|---|
| ``epoch`` | random text, made when it is not there: another one after the data was lost |
| ``entries/KIND/KEY`` | the value, under a lease of its owner's |
| ``leases/KEY`` | the owner, under a lease of its own |

The version is etcd's revision, and so is the number of a lease: that of the moment in which its key was made. Both grow
as long as there is a quorum, whoever leads it.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests
from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import ConnectionFailedError, ConnectionTimeoutError, Etcd3Exception

from multisite.cluster.registry import ANSWERS_WITHIN, FIGURES, Address, EngineAway, Snapshot, Version

_T = TypeVar("_T")
PORT = 2379
MOST_AT_ONCE = 100  # operations in a transaction; etcd takes 128


class EtcdRegistry:
    """``etcd://HOST:PORT,…`` and ``etcds://`` (TLS): the members of one cluster; the first that answers is used.

    Raises:
        ValueError: the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        address = Address.parse(url)
        if address.user or address.path:
            raise ValueError("it is written etcd://HOST:PORT, with neither a user nor a path")
        self._clients = [_client(address.scheme, host, port or PORT) for host, port in address.hosts]
        self._prefix = f"/multisite/{address.name}/"
        self._entries = self._prefix + "entries/"
        self._epoch = ""
        self._counted = Version("", 0), 0  # entries at the last snapshot
        self._owned: _Owned | None = None
        self._leases: dict[tuple[str, str], tuple[int, int]] = {}  # by key and owner: etcd's lease, and our number
        self._watch: _Watch | None = None

    def _call(self, do: Callable[[Etcd3Client], _T]) -> _T:
        """Ask a member; if it cannot be reached, the next.

        Raises:
            EngineAway: none of them answers.
        """
        reason = ""
        for _ in range(len(self._clients)):
            client = self._clients[0]
            try:
                return do(client)
            except (ConnectionFailedError, ConnectionTimeoutError, requests.ConnectionError, requests.Timeout):
                reason = reason or f"{client.host}:{client.port} cannot be reached"
                self._clients.append(self._clients.pop(0))
            except (Etcd3Exception, requests.RequestException, KeyError, ValueError) as error:
                raise EngineAway(_text(error)) from None
        raise EngineAway(reason)

    def _transact(self, transaction: dict[str, Any]) -> dict[str, Any]:
        return self._call(lambda client: dict(client.transaction(transaction)))

    # Entries

    def announce(self, kind: str, key: str, value: str, ttl: float) -> None:
        """Add an entry, or confirm it: all of one owner's are under one lease of etcd's."""
        now, owned = time.monotonic(), self._owned
        if owned and now - owned.renewed > ttl / 5:
            if self._renew(owned.lease):
                owned.renewed = now
            else:
                owned = self._owned = None
        if owned is None:
            owned = self._owned = _Owned(self._grant(ttl), now)
        path = f"{self._entries}{kind}/{key}"
        if owned.values.get(path) != value:
            put = {"key": _b64(path), "value": _b64(value), "lease": owned.lease}
            try:
                self._call(lambda client: client.post(client.get_url("/kv/put"), json=put))
            except EngineAway:
                self._owned = None  # the lease may be gone, and with it all entries
                raise
            owned.values[path] = value

    def withdraw(self, kind: str, key: str) -> None:
        """Remove an entry."""
        path = f"{self._entries}{kind}/{key}"
        if self._owned:
            self._owned.values.pop(path, None)
        self._call(lambda client: client.delete(path))

    def version(self) -> Version:
        """Return the version."""
        return self._look({"key": _b64(self._entries), "range_end": _b64(_end(self._entries)), "count_only": True})[0]

    def snapshot(self, since: Version | None = None) -> Snapshot:
        """Return all entries, or those that are new, if etcd counts as many as it did and those that it made since."""
        request = {"key": _b64(self._entries), "range_end": _b64(_end(self._entries))}
        is_whole, pairs = True, []
        if since and since == self._counted[0]:
            version, found = self._look({**request, "min_mod_revision": since.number + 1})
            pairs, count = found.get("kvs", []), int(found.get("count", 0))
            made = sum(int(pair["create_revision"]) > since.number for pair in pairs)
            is_whole = version.epoch != since.epoch or count != self._counted[1] + made
        if is_whole:
            version, found = self._look(request)
            pairs, count = found.get("kvs", []), int(found.get("count", 0))
        self._counted = version, count
        entries: dict[str, dict[str, str]] = {}
        for pair in pairs:
            kind, _, key = _text_of(pair["key"])[len(self._entries) :].partition("/")
            entries.setdefault(kind, {})[key] = _text_of(pair.get("value", ""))
        return Snapshot(version, entries, is_whole)

    def _look(self, request: dict[str, Any]) -> tuple[Version, dict[str, Any]]:
        """Return the version and the answer to a range request, at one moment."""
        key = _b64(self._prefix + "epoch")
        reads = [{"request_range": {"key": key}}, {"request_range": request}]
        made = {"request_put": {"key": key, "value": _b64(secrets.token_hex(8))}}
        transaction = {"compare": [_made_at(key, "GREATER", 0)], "success": reads, "failure": [made]}
        answer = self._transact(transaction)
        if not answer.get("succeeded"):
            answer = self._transact(transaction)
        made_at, found = (one["response_range"] for one in answer["responses"])
        epoch = _text_of(made_at["kvs"][0]["value"])
        if epoch != self._epoch:
            self._epoch, self._owned = epoch, None  # what was announced is gone
        return Version(epoch, int(answer["header"]["revision"])), found

    def changes(self, timeout: float) -> bool:
        """Wait for etcd to report a change."""
        if self._watch is None or not self._watch.is_alive:
            self._watch = _Watch(self._clients[0], self._entries)
        return self._watch.wait(timeout)

    # Leases

    def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take a lease or renew it."""
        path, known = f"{self._prefix}leases/{key}", self._leases.get((key, owner))
        if known and self._renew(known[0]) and self.holder(key) == (owner, known[1]):
            return known[1]
        self._leases.pop((key, owner), None)
        held = self._get(path)
        if held is None:
            lease = self._grant(ttl)
            held = self._take(path, owner, lease)
            if held["lease"] != lease:
                self._revoke(lease)
        if held["owner"] != owner or not self._renew(held["lease"]):
            return None
        self._leases[key, owner] = held["lease"], held["number"]
        return int(held["number"])

    def _take(self, path: str, owner: str, lease: int) -> dict[str, Any]:
        """Make the key of a lease if it is not there; return what is there then."""
        key = _b64(path)
        put = {"request_put": {"key": key, "value": _b64(owner), "lease": lease}}
        read = {"request_range": {"key": key}}
        answer = self._transact({"compare": [_made_at(key, "EQUAL", 0)], "success": [put, read], "failure": [read]})
        return _held(answer["responses"][-1]["response_range"]["kvs"][0])

    def release(self, key: str, owner: str, number: int) -> None:
        """Give a lease back."""
        path = _b64(f"{self._prefix}leases/{key}")
        compare = [_made_at(path, "EQUAL", number), _is(path, owner)]
        self._transact({"compare": compare, "success": [{"request_delete_range": {"key": path}}], "failure": []})
        lease, known = self._leases.get((key, owner), (0, 0))
        if known == number:
            del self._leases[key, owner]
            self._revoke(lease)

    def holder(self, key: str) -> tuple[str, int] | None:
        """Return the owner of a lease and its number."""
        held = self._get(f"{self._prefix}leases/{key}")
        return (held["owner"], held["number"]) if held else None

    def _get(self, path: str) -> dict[str, Any] | None:
        request = {"key": _b64(path)}
        answer = self._call(lambda client: dict(client.post(client.get_url("/kv/range"), json=request)))
        return _held(answer["kvs"][0]) if answer.get("kvs") else None

    def publish(self, prefixes: tuple[str, ...], values: Mapping[str, str]) -> None:
        """Write keys for other programs, so many at once as etcd allows."""
        known: dict[str, str] = {}
        for prefix in prefixes:
            request = {"request_range": {"key": _b64(prefix), "range_end": _b64(_end(prefix))}}
            answer = self._transact({"compare": [], "success": [request], "failure": []})
            pairs = answer["responses"][0]["response_range"].get("kvs", ())
            known |= {_text_of(pair["key"]): _text_of(pair.get("value", "")) for pair in pairs}
        operations: list[dict[str, Any]] = [
            {"request_put": {"key": _b64(key), "value": _b64(value)}}
            for key, value in values.items()
            if known.get(key) != value
        ]
        operations += [{"request_delete_range": {"key": _b64(key)}} for key in known if key not in values]
        for start in range(0, len(operations), MOST_AT_ONCE):
            self._transact({"compare": [], "success": operations[start : start + MOST_AT_ONCE], "failure": []})

    # etcd's own leases

    def _grant(self, ttl: float) -> int:
        return int(self._call(lambda client: client.lease(math.ceil(ttl)).id))

    def _renew(self, lease: int) -> bool:
        """Tell whether the lease was still there."""
        request = {"ID": lease}
        answer = self._call(lambda client: client.post(client.get_url("/lease/keepalive"), json=request))
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def _revoke(self, lease: int) -> None:
        try:
            self._call(lambda client: client.post(client.get_url("/lease/revoke"), json={"ID": lease}))
        except EngineAway:
            return  # it ends by itself


class _Owned:
    """What this process has announced under one lease."""

    def __init__(self, lease: int, renewed: float) -> None:
        self.lease, self.renewed = lease, renewed
        self.values: dict[str, str] = {}


class _Watch:
    """A thread that reads what etcd reports of a prefix, until the connection ends."""

    def __init__(self, client: Etcd3Client, prefix: str) -> None:
        self._client, self._prefix = client, prefix
        self._hint = threading.Event()
        self._thread = threading.Thread(target=self._read, name="multisite-etcd", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wait(self, timeout: float) -> bool:
        came = self._hint.wait(timeout)
        self._hint.clear()
        return came

    def _is_news(self, event: dict[str, Any]) -> bool:
        return not _text_of(event["kv"]["key"]).startswith(f"{self._prefix}{FIGURES}/")

    def _read(self) -> None:
        request = {"create_request": {"key": _b64(self._prefix), "range_end": _b64(_end(self._prefix))}}
        try:
            url = self._client.get_url("/watch")
            with requests.Session() as session:
                session.trust_env = False
                answer = session.post(url, json=request, stream=True, timeout=(ANSWERS_WITHIN, None))
                for line in answer.iter_lines():
                    events = json.loads(line or "{}").get("result", {}).get("events", ())
                    if any(map(self._is_news, events)):
                        self._hint.set()
        except (Etcd3Exception, requests.RequestException, KeyError, ValueError):
            threading.Event().wait(ANSWERS_WITHIN / 2)  # the next watch would fail at once, too


def _client(scheme: str, host: str, port: int) -> Etcd3Client:
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment is not for this
    protocol = "https" if scheme == "etcds" else "http"
    return Etcd3Client(host, port, protocol, timeout=ANSWERS_WITHIN, session=session)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _text_of(encoded: str) -> str:
    return base64.b64decode(encoded).decode("utf-8", "surrogateescape")


def _end(prefix: str) -> str:
    """Return the first key after all that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _made_at(key: str, result: str, revision: int) -> dict[str, Any]:
    return {"key": key, "target": "CREATE", "result": result, "create_revision": revision}


def _is(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "target": "VALUE", "result": "EQUAL", "value": _b64(value)}


def _held(pair: dict[str, Any]) -> dict[str, Any]:
    return {
        "owner": _text_of(pair.get("value", "")),
        "number": int(pair["create_revision"]),
        "lease": int(pair.get("lease", 0)),
    }


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
