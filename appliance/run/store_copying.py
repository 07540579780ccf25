"""Moving an appliance from one store to another: its records, with the keys that they are sealed under.

What is under way stays where it is: mail is delivered from the store that it was accepted into, so an appliance is run
on that until its queue is empty, and moved then. Sessions and what is counted go their own way (`store.ephemeral`).
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from appliance.configuration import Configuration
from appliance.run import CannotStart
from appliance.run.lock import hold
from appliance.run.stores import (
    ALL_KEYS,
    EPHEMERAL_KEY,
    SPOOL_FILE,
    cluster_secrets,
    is_shared,
    open_records,
    open_spool,
)
from appliance.storage.copying import Contents, NotAlike, Progress, TargetInUse, copy


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of it."""

    contents: Mapping[str, Contents]
    """What both sides have now, by collection."""
    keys: tuple[str, ...]
    """The keys that were brought along, by name."""
    waiting: int
    """Deliveries that wait on the side which was copied, and are not copied."""


def copy_store(config: Configuration, source_url: str, target_url: str, progress: Progress) -> Copied:
    """Copy the records at one URL (`store.url`) to another, and what they are sealed under; see `storage.copying`.

    Raises CannotStart where they are the same, where an appliance runs on the files of this machine, where the target
    has rows of its own, and where both are not alike in the end; SecretRefused, StoreUnavailable, SchemaMismatch or
    OSError.
    """
    if source_url == target_url:
        raise CannotStart("these are one and the same store")
    source_config, target_config = _with(config, source_url), _with(config, target_url)
    if not (is_shared(source_config) and is_shared(target_config)):
        hold(config.data_dir)
    keys = _bring_keys(source_config, target_config)
    with closing(open_records(source_config)) as source, closing(open_records(target_config, whole=False)) as target:
        try:
            contents = copy(source, target, progress)
        except (TargetInUse, NotAlike) as error:
            raise CannotStart(str(error)) from None
    return Copied(contents, tuple(keys), _waiting(source_config))


def _with(config: Configuration, url: str) -> Configuration:
    return replace(config, store=replace(config.store, url=url))


def _bring_keys(source: Configuration, target: Configuration) -> list[str]:
    """Before any row: where a key can't be brought, nothing is."""
    names = (*ALL_KEYS, EPHEMERAL_KEY)
    if is_shared(source) and is_shared(target):
        # Before anything opens the target, which would draw others. What this node holds opens both.
        keys = cluster_secrets(source).stored(names)
        cluster_secrets(target).take(keys)
        return sorted(keys)
    if is_shared(target):
        return cluster_secrets(target).carry_in(names)
    return cluster_secrets(source).carry_out(names)


def _waiting(source: Configuration) -> int:
    if not is_shared(source) and not (source.data_dir / SPOOL_FILE).exists():
        return 0
    with closing(open_spool(source, "store copy")) as spool:
        return spool.depth()[0]
