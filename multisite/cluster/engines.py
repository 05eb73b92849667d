"""Which engine a URL names: Redis, Sentinel, etcd, or one of another package. Its library is imported only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from multisite.cluster.registry import Address, Registry
from multisite.config.model import Home
from multisite.errors import Problem

_EXAMPLE = "write it like redis://10.0.0.1, sentinel://10.0.0.1:26379/mymaster or etcd://10.0.0.1:2379"
GROUP = "multisite.registries"  # entry points of other packages, by the URL's scheme


def _redis(url: str) -> Registry:
    from multisite.cluster.redisengine import RedisRegistry

    return RedisRegistry(url)


def _etcd(url: str) -> Registry:
    from multisite.cluster.etcdengine import EtcdRegistry

    return EtcdRegistry(url)


_OWN: dict[str, tuple[Callable[[str], Registry], str]] = {
    **dict.fromkeys(("redis", "rediss", "sentinel"), (_redis, "redis")),
    **dict.fromkeys(("etcd", "etcds"), (_etcd, "etcd")),
}


def open_registry(url: str) -> Registry:
    """Return the registry that a URL names; it connects later, with its first call.

    Raises:
        ValueError: the URL is wrong, or a library is missing; the message is the reason, with the remedy.
    """
    scheme = Address.parse(url).scheme
    if scheme in _OWN:
        make, extra = _OWN[scheme]
        try:
            return make(url)
        except ImportError as error:
            library = (error.name or extra).partition(".")[0]
            raise ValueError(f"the library {library} is missing; pip install 'multisite-wsgi[{extra}]'") from None
    return _of_package(scheme, url)


def problems(home: Home) -> list[Problem]:
    """Return why the engine that moya.conf names cannot be used; nothing is connected."""
    url, publish = home.cluster.url, home.cluster.publish
    if publish and not url:
        reason = "there is no engine to publish into"
        return [Problem("MS746", home.file, reason, "cluster", "publish", publish, "set url, too: redis://10.0.0.1")]
    try:
        if url:
            open_registry(url)
    except ValueError as error:
        reason, _, remedy = str(error).partition("; ")
        try:
            shown = str(Address.parse(url))
        except ValueError:
            shown = "" if "@" in url or "?" in url else url  # it may hold a password
        return [Problem("MS743", home.file, reason, "cluster", "url", shown, remedy or _EXAMPLE)]
    return []


def _of_package(scheme: str, url: str) -> Registry:
    from importlib_metadata import entry_points

    for found in entry_points(group=GROUP, name=scheme):
        try:
            return cast(Registry, found.load()(url))
        except Exception as error:
            raise ValueError(f"cannot make the registry {scheme}: {error}") from error
    known = sorted({*_OWN, *(each.name for each in entry_points(group=GROUP))})
    raise ValueError(f"there is no engine {scheme}; there are: {', '.join(known)}")
