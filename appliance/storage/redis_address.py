"""Where a Redis is. Read by the configuration, which loads no library for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """One server, or the Sentinels that know which server is the master now."""

    hosts: tuple[tuple[str, int], ...]
    """Names or IP addresses (without brackets) with ports: of the server, or of the Sentinels."""
    service: str = ""
    """What the Sentinels call the server. Empty: there are none, and `hosts` has the server itself."""
    database: int = 0
    user: str = ""
    """Of the server. Empty: the default user, with a password or without."""
    tls: bool = False
    """From the first octet on, to the server and to the Sentinels."""
    authorities: str = ""
    """A PEM file with the certificates of those whose word for a server is taken. Empty: those of this machine."""
    certificate: str = ""
    """A PEM file with our own certificate and its key, for a server that asks who we are. Empty: none is shown."""
