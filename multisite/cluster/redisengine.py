"""A registry in Redis, alone or behind Sentinel.

All keys begin with ``multisite:{NAME}:``. The braces keep them on one server of a Redis Cluster.

| key | what |
|---|---|
| ``epoch`` | random text, made when it is not there: another one after the data was lost |
| ``version`` | grows with each change; at least the milliseconds of the server's clock |
| ``entries`` | hash: ``KIND KEY`` → value |
| ``expires`` | sorted set: ``KIND KEY`` → milliseconds of the server's clock until which it counts |
| ``changed`` | sorted set: ``KIND KEY`` → version that added or changed it |
| ``removed`` | version that last removed any |
| ``lease:KEY`` | ``NUMBER OWNER``, with a time to live |
| ``fence`` | the last number of any lease |
| ``published`` | hash: what `publish` wrote, by key |

Each change is one script, and so is each look: nobody sees half of one. A failover may lose the last moments, because
Redis replicates later; so leases are best effort. Their numbers still grow: they are at least the server's clock, and
so is the version. What a failover took back, its owner announces again, under a version that nobody has seen.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from multisite.cluster.registry import ANSWERS_WITHIN, FIGURES, Address, EngineAway, Snapshot, Version

_KEYS = ("epoch", "version", "entries", "expires", "changes", "changed", "removed")
MOST_NEW = 2000  # entries above which a look reads all of them: a script's stack is bounded

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_SWEEP = (
    _NOW
    + """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local is_news = false
local function grow()
  local number = string.format('%.0f', math.max(now, (redis.call('GET', KEYS[2]) or 0) + 1))
  redis.call('SET', KEYS[2], number)
  return number
end
local function remove(names)
  redis.call('HDEL', KEYS[3], unpack(names))
  redis.call('ZREM', KEYS[4], unpack(names))
  redis.call('ZREM', KEYS[6], unpack(names))
  redis.call('SET', KEYS[7], grow())
  is_news = true
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 1000)
if #gone > 0 then remove(gone) end
"""
)
_RETURN = """
if is_news then redis.call('PUBLISH', KEYS[5], '') end
"""
_ANNOUNCE = (
    _SWEEP
    + """
redis.call('ZADD', KEYS[4], now + ARGV[4], ARGV[2])
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[3] then
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
  redis.call('ZADD', KEYS[6], grow(), ARGV[2])
  is_news = is_news or ARGV[5] == 'news'
end
"""
    + _RETURN
)
_WITHDRAW = (
    _SWEEP
    + """
if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then remove({ARGV[2]}) end
"""
    + _RETURN
)
_LOOK = (
    _SWEEP
    + _RETURN
    + """
local found = {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]) or '0'}
if ARGV[2] == '' then return found end
local since, removed = tonumber(ARGV[4]), tonumber(redis.call('GET', KEYS[7]) or 0)
if ARGV[3] == found[1] and removed <= since and since <= tonumber(found[2]) then
  local names = redis.call('ZRANGEBYSCORE', KEYS[6], '(' .. ARGV[4], '+inf', 'LIMIT', 0, MOST + 1)
  if #names <= MOST then
    found[3], found[4] = 'new', {}
    local values = #names > 0 and redis.call('HMGET', KEYS[3], unpack(names)) or {}
    for at, name in ipairs(names) do
      table.insert(found[4], name)
      table.insert(found[4], values[at])
    end
    return found
  end
end
found[3], found[4] = 'all', redis.call('HGETALL', KEYS[3])
return found
"""
).replace("MOST", str(MOST_NEW))
_LEASE = (
    _NOW
    + """
local held = redis.call('GET', KEYS[1])
if held then
  local number, owner = string.match(held, '^(%d+) (.*)$')
  if owner ~= ARGV[1] then return false end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return number
end
local number = string.format('%.0f', math.max(now, (redis.call('GET', KEYS[2]) or 0) + 1))
redis.call('SET', KEYS[2], number)
redis.call('SET', KEYS[1], number .. ' ' .. ARGV[1], 'PX', ARGV[2])
return number
"""
)
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RedisRegistry:
    """``redis://``, ``rediss://`` (TLS) and ``sentinel://HOST:PORT,…/MASTER``.

    Raises:
        ValueError: the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        self._client = _client(url)
        self._prefix = f"multisite:{{{Address.parse(url).name}}}:"
        self._keys = [self._prefix + name for name in _KEYS]
        self._hints: Any = None
        register = self._client.register_script
        self._announce, self._withdraw, self._look = register(_ANNOUNCE), register(_WITHDRAW), register(_LOOK)
        self._lease, self._release = register(_LEASE), register(_RELEASE)

    def _entries(self, script: Any, *arguments: object) -> Any:
        """Run a script on the entries; an engine without an epoch gets a new one."""
        return self._run(script, self._keys, secrets.token_hex(8), *arguments)

    def _run(self, script: Any, keys: list[str], *arguments: object) -> Any:
        try:
            return script(keys=keys, args=arguments)
        except (redis.RedisError, OSError) as error:
            raise _away(error) from None

    def announce(self, kind: str, key: str, value: str, ttl: float) -> None:
        """Add an entry, or confirm it."""
        self._entries(self._announce, f"{kind} {key}", value, round(ttl * 1000), "" if kind == FIGURES else "news")

    def withdraw(self, kind: str, key: str) -> None:
        """Remove an entry."""
        self._entries(self._withdraw, f"{kind} {key}")

    def version(self) -> Version:
        """Return the version."""
        epoch, number = self._entries(self._look, "")
        return Version(epoch, int(number))

    def snapshot(self, since: Version | None = None) -> Snapshot:
        """Return all entries, or those that are new."""
        epoch, number, which, fields = self._entries(self._look, "entries", *(since or ("", 0)))
        found: dict[str, dict[str, str]] = {}
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            kind, _, key = name.partition(" ")
            found.setdefault(kind, {})[key] = value
        return Snapshot(Version(epoch, int(number)), found, which == "all")

    def changes(self, timeout: float) -> bool:
        """Wait for a message that there was a change."""
        try:
            if self._hints is None:
                self._hints = self._client.pubsub(ignore_subscribe_messages=True)
                self._hints.subscribe(self._keys[4])
            return self._hints.get_message(timeout=timeout) is not None
        except (redis.RedisError, OSError) as error:
            hints, self._hints = self._hints, None
            if hints is not None:
                hints.close()
            raise _away(error) from None

    def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take a lease or renew it."""
        keys = [f"{self._prefix}lease:{key}", f"{self._prefix}fence"]
        number = self._run(self._lease, keys, owner, round(ttl * 1000))
        return int(number) if number else None

    def release(self, key: str, owner: str, number: int) -> None:
        """Give a lease back."""
        self._run(self._release, [f"{self._prefix}lease:{key}"], f"{number} {owner}")

    def publish(self, prefixes: tuple[str, ...], values: Mapping[str, str]) -> None:
        """Write keys for other programs; those that were written before are in a hash."""
        index = f"{self._prefix}published"
        try:
            known = cast("dict[str, str]", self._client.hgetall(index))
            changed = {key: value for key, value in values.items() if known.get(key) != value}
            gone = [key for key in known if key not in values]
            pipeline = self._client.pipeline()
            if gone:
                pipeline.delete(*gone)
                pipeline.hdel(index, *gone)
            if changed:
                pipeline.mset(changed)
                pipeline.hset(index, mapping=changed)
            pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise _away(error) from None

    def holder(self, key: str) -> tuple[str, int] | None:
        """Return the owner of a lease and its number."""
        try:
            held = cast("str | None", self._client.get(f"{self._prefix}lease:{key}"))
        except (redis.RedisError, OSError) as error:
            raise _away(error) from None
        number, _, owner = (held or "").partition(" ")
        return (owner, int(number)) if held else None


def _client(url: str) -> redis.Redis:
    """Raises ValueError: the URL is wrong."""
    address = Address.parse(url)
    options: dict[str, Any] = {
        "socket_timeout": ANSWERS_WITHIN,
        "socket_connect_timeout": ANSWERS_WITHIN,
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
        # A connection that was idle while the server was restarted. A server that hangs is not asked a second time.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    if address.scheme != "sentinel":
        if len(address.hosts) > 1:
            raise ValueError("it names several hosts; write sentinel://HOST:PORT,HOST:PORT/MASTER")
        client: redis.Redis = redis.Redis.from_url(url.partition("#")[0], **options)
        return client
    master, _, database = address.path.partition("/")
    if not master or not (database or "0").isdigit():
        raise ValueError("the name of the master is missing, as in sentinel://10.0.0.1:26379/mymaster")
    options |= {"username": address.user or None, "password": address.password or None, "db": int(database or 0)}
    own = {"socket_timeout": ANSWERS_WITHIN, "socket_connect_timeout": ANSWERS_WITHIN}
    sentinel = Sentinel([(host, port or 26379) for host, port in address.hosts], sentinel_kwargs=own)
    return cast(redis.Redis, sentinel.master_for(master, **options))


def _away(error: Exception) -> EngineAway:
    if isinstance(error, MasterNotFoundError):
        return EngineAway("Sentinel knows no master")
    return EngineAway(str(error).rstrip(".") or type(error).__name__)
