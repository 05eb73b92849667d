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
    key_file: str = option(
        "path",
        help="File with the key by which the nodes recognise each other: at least 32 bytes, the same on each of them, "
        "closed to other accounts. A relative path starts at the folder of moya.conf. Only sites with exclusive = yes "
        "need it, because their requests are relayed from one node to another.",
        example="cluster.key",
    )
    lease: float = option(
        "duration",
        "15s",
        "Time after which another node may run an exclusive site, where the one that ran it has lost the registry. "
        "That one ends the site a tenth of this time, or a second, earlier.",
        limits=(3, 3600),
    )
