"""What `onward check` has to say of the servers that nodes share: MongoDB and Redis."""

from contextlib import closing

from appliance.command_line.findings import Finding, Grade
from appliance.configuration import Configuration
from appliance.privacy.secrets import SecretRefused
from appliance.run import CannotStart
from appliance.run.ephemeral import redis_server
from appliance.run.server_clock import clock_ahead_ms
from appliance.run.stores import is_shared, shared_url
from appliance.storage.records import SchemaMismatch, StoreUnavailable

OLDEST_REDIS = (7, 0)
"""Every command that is used is in this one; it is what Debian 12 has."""

MAX_SKEW_MS = 1000
"""By how much the clock of this machine may differ from the one of the MongoDB. Those that are kept in time differ by
milliseconds. Mail flows all the same, but the log and every limit of a day, an hour or a minute go by it."""

_CANNOT = (CannotStart, SecretRefused, OSError)


def check_mongodb(config: Configuration) -> Finding:
    """Does the server that holds records and mail answer, and does it keep what it is given?"""
    name = "MongoDB"
    if not is_shared(config):
        return Finding(Grade.OK, name, "none: records and mail under way are files of this machine")
    from appliance.storage.mongo_database import MongoDatabase

    try:
        with closing(MongoDatabase(shared_url(config), ())) as database:
            about = database.about()
    except (StoreUnavailable, SchemaMismatch) as error:
        return Finding(Grade.FAULT, name, str(error), "start it, or put store.url right: no mail is taken before that")
    except _CANNOT as error:
        return Finding(Grade.FAULT, name, str(error), "the appliance does not start before that")
    told = ", ".join(filter(None, (about.version, about.storage_engine)))
    if not about.persists:
        advice = "run it with the storage engine wiredTiger: what was answered 250 would be gone with the server"
        return Finding(Grade.FAULT, name, f"{told}: it keeps nothing on a disk", advice)
    if about.members == 0:
        advice = "mail waits while it is away, and is lost with its disk; a replica set of three goes on"
        return Finding(Grade.WARNING, name, f"{told}: it stands alone", advice)
    if about.members < 3:
        advice = "give it three members: with fewer, the loss of one stops all mail"
        return Finding(Grade.WARNING, name, f"{told}, a replica set of {about.members}", advice)
    return Finding(Grade.OK, name, f"{told}, a replica set of {about.members}")


def check_clock(config: Configuration) -> Finding:
    """Does the clock of this machine agree with those of the others? All of them ask the MongoDB."""
    name = "clock"
    if not is_shared(config):
        return Finding(Grade.OK, name, "this machine's own")
    from appliance.storage.mongo_database import MongoDatabase

    try:
        with closing(MongoDatabase(shared_url(config), ())) as database:
            ahead = clock_ahead_ms(database.now)
    except (StoreUnavailable, SchemaMismatch, *_CANNOT) as error:
        return Finding(Grade.WARNING, name, f"the MongoDB can't be asked for its time: {error}", "try again later")
    told = f"{abs(ahead) / 1000:.1f} s {'ahead of' if ahead > 0 else 'behind'} that of the MongoDB"
    if abs(ahead) > MAX_SKEW_MS:
        advice = "have the time of all machines synchronised, this one and the servers: chrony, or systemd-timesyncd"
        return Finding(Grade.WARNING, name, f"it is {told}", advice)
    return Finding(Grade.OK, name, f"it agrees with that of the MongoDB to {MAX_SKEW_MS / 1000:g} s")


def check_redis(config: Configuration) -> Finding:
    """Does the server answer that holds what may be forgotten, and does it forget it?"""
    name = "Redis"
    if config.store.ephemeral is None:
        shared = is_shared(config)
        if shared:
            advice = 'set store.ephemeral = "redis://..." on all of them'
            return Finding(Grade.WARNING, name, "none: each node has sessions and limits of its own", advice)
        return Finding(Grade.OK, name, "none: sessions and what is counted are in memory")
    try:
        with closing(redis_server(config, config.store.ephemeral)) as server:
            about = server.about()
    except StoreUnavailable as error:
        advice = "start it, or put store.ephemeral right: mail flows without, and nobody can sign in"
        return Finding(Grade.WARNING, name, str(error), advice)
    except _CANNOT as error:
        return Finding(Grade.FAULT, name, str(error), "the appliance does not start before that")
    if about is None:
        return Finding(Grade.OK, name, "it answers; its user may not ask it for its version (INFO, CONFIG)")
    if tuple(int(part) for part in about.version.split(".")[:2]) < OLDEST_REDIS:
        wanted = ".".join(map(str, OLDEST_REDIS))
        return Finding(Grade.WARNING, name, f"it is version {about.version}", f"use {wanted} or later")
    if about.persists:
        advice = 'set save "" and appendonly no: nothing in it is worth a file, and what is erased would stay in one'
        return Finding(Grade.WARNING, name, f"{about.version}: it writes what it has to a file", advice)
    if about.evicts:
        advice = "set maxmemory-policy noeviction: else who counts attempts may be made to forget"
        return Finding(Grade.WARNING, name, f"{about.version}: it forgets what it should keep when it is full", advice)
    return Finding(Grade.OK, name, f"{about.version}, in memory alone")


def check_nodes(config: Configuration) -> Finding:
    """Do the machines that share a store agree on what strangers get to see?"""
    name = "nodes"
    if not is_shared(config):
        return Finding(Grade.OK, name, "this machine alone")
    if config.forwarding.srs_domain == f"srs.{config.hostname}":
        advice = "set forwarding.srs_domain, to the same on all of them, and have its MX name all of them"
        detail = f"what comes back to {config.forwarding.srs_domain} finds its sender at {config.hostname} alone"
        return Finding(Grade.WARNING, name, detail, advice)
    return Finding(Grade.OK, name, f"rewritten senders are at {config.forwarding.srs_domain}")
