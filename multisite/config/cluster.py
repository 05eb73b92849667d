"""The section [cluster] of moya.conf; its fields declare the options."""

from __future__ import annotations

from dataclasses import dataclass

from multisite.config.option import option


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What several machines share."""

    nodes: tuple[str, ...] = option(
        "machines",
        help="The machines that serve this home, each with the port at which its server listens for the front ends: "
        "ADDRESS:PORT or ADDRESS:PORT=WEIGHT. Rules of multisite create-rules distribute the hosts among them.",
        example="10.0.0.1:8000, 10.0.0.2:8000=2",
    )
    node: str = option(
        "machine",
        help="This machine, as nodes lists it.",
        note="the node with an address of this machine",
        example="10.0.0.1:8000",
    )
    publish: str = option(
        "choice",
        help="With traefik, the map of all sites and machines is written for Traefik's Redis or etcd provider, into "
        "the engine that url names. One machine does so at a time.",
        note="nothing is published",
        choices=("traefik",),
        example="traefik",
    )
    url: str = option(
        "text",
        help="Registry through which the machines know each other: Redis (redis://HOST, rediss://HOST for TLS), Redis "
        "behind Sentinel (sentinel://HOST:PORT,.../MASTER) or etcd (etcd://HOST:PORT,..., etcds:// for TLS). #NAME at "
        "the end names the cluster, where several share an engine. Each needs its library: multisite-wsgi[redis] or "
        "multisite-wsgi[etcd].",
        example="redis://10.0.0.1",
    )
