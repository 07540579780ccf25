"""From a file to a Configuration, or to a ConfigurationError that names every fault, its line and the cure."""

import dataclasses
import difflib
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from appliance.configuration.lines import KeyPath, key_lines, line_of
from appliance.configuration.settings import (
    PLAN_DEFAULTS,
    PLAN_SETTINGS,
    READ,
    SECTIONS,
    Configuration,
    IpVersion,
    read_plan,
)
from appliance.configuration.unbuilt import refused
from appliance.configuration.values import (
    FROM_SYSTEMD,
    LONGEST_ADDRESS,
    LONGEST_SRS_DOMAIN,
    Impossible,
    Value,
    domain,
    shown,
    text,
)
from appliance.model.account import Plan
from appliance.model.time import format_duration, parse_duration

SEARCHED = (Path("onward.toml"), Path("/etc/onward/onward.toml"))
"""Where a configuration is looked for when none is named."""

HOSTS = Path("/etc/hosts")
"""Where a machine says its own full name, without asking anybody (hosts(5))."""

LARGEST_FILE = 1 << 20
"""Octets. A configuration is a page or two; whatever is larger is some other file."""

_TOML_PLACE = re.compile(r"(.*) \(at line ([0-9]+), column [0-9]+\)", re.DOTALL)
_PLAN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)


class ConfigurationError(Exception):
    """The configuration is wrong. The text is for people: one line per fault."""


def find(explicit: str | None) -> Path | None:
    """Which file is the configuration: the one that --config names, $ONWARD_CONFIG, or the first that is there.

    None: there is none, and the defaults run. Raises ConfigurationError where a file that was named does not exist.
    """
    for named, by in ((explicit, "--config"), (os.environ.get("ONWARD_CONFIG"), "$ONWARD_CONFIG")):
        if named:
            if not Path(named).exists():
                raise ConfigurationError(f"{named}: {by} names this file, and it does not exist")
            return Path(named)
    return next((path for path in SEARCHED if path.exists()), None)


def load(path: Path | None) -> Configuration:
    """Read this file; None: all defaults. Raises ConfigurationError, with every fault that was found."""
    return _Reading(path).configuration()


def retention_ms(config: Configuration, setting: str) -> int:
    """How long a declaration's rows are kept: a key such as `log.error_retention`, or a fixed span such as `10d`.

    Raises KeyError where there is no such key.
    """
    section, dot, key = setting.partition(".")
    if not dot:
        return parse_duration(setting)
    if section not in SECTIONS or key not in _keys_of(SECTIONS[section]):
        raise KeyError(setting)
    span_ms = getattr(getattr(config, section), key)
    if not isinstance(span_ms, int):
        raise KeyError(setting)
    return span_ms


class _Reading:
    """One pass over one file, which collects what is wrong as it goes."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.faults: list[tuple[int, str]] = []
        self.document: dict[str, object] = {}
        self.lines: dict[KeyPath, int] = {}
        if path is not None:
            written = _text_of(path)
            try:
                self.document = tomllib.loads(written)
            except tomllib.TOMLDecodeError as error:
                found = _TOML_PLACE.fullmatch(str(error))
                where, what = (f"{path}:{found[2]}", found[1]) if found else (str(path), str(error))
                raise ConfigurationError(f"{where}: this is not TOML: {what}") from None
            except (RecursionError, ValueError):
                # Brackets in brackets without end, or a number of thousands of digits.
                raise ConfigurationError(f"{path}: this is TOML of a kind that no configuration is made of") from None
            self.lines = key_lines(written)

    def configuration(self) -> Configuration:
        self._refuse_unknown((), self.document, ("hostname", "data_dir", *SECTIONS, "plans"))
        sections = {name: self._section(name, section) for name, section in SECTIONS.items()}
        plans = self._plans()
        hostname = self._top("hostname", domain, _machine_name, "the machine's own name will not do")
        data_dir = self._top("data_dir", _directory, _state_directory, "$STATE_DIRECTORY will not do")
        self._stop_at_faults()
        # The types of the sections were lost in the loop above; each is an instance of its own class in SECTIONS.
        config = Configuration(hostname=hostname, data_dir=data_dir, plans=plans, **sections)  # type: ignore[arg-type]
        self._refuse_contradictions(config)
        self._refuse_unbuilt(config)
        resolved = dataclasses.replace(
            config,
            forwarding=dataclasses.replace(
                config.forwarding, srs_domain=config.forwarding.srs_domain or f"srs.{hostname}"
            ),
            mail=dataclasses.replace(config.mail, from_=config.mail.from_ or f"postmaster@{hostname}"),
        )
        self._refuse_too_long(config, resolved)
        self._stop_at_faults()
        return resolved

    # -------------------------------------------------------------- the parts of the file

    def _top(self, key: str, read: Callable[[object], Value], default: Callable[[], str], its_source: str) -> Value:
        """A key above all tables. On a fault, the value is whatever: nobody gets to see it."""
        written = self.document.get(key, "")
        try:
            return read(default() if written == "" else written)
        except Impossible as error:
            self._fault((key,), str(error) if written != "" else f"{its_source}: {error}")
            return read("unreadable.invalid")

    def _table(self, path: KeyPath, within: Mapping[str, object]) -> dict[str, object]:
        written = within.get(path[-1], {})
        if isinstance(written, dict):
            return written
        self._fault(path, f"{shown(written)} is not a table; write [{_dotted(path)}] on a line of its own")
        return {}

    def _section(self, name: str, section: type) -> object:
        written = self._table((name,), self.document)
        keys = _keys_of(section)
        self._refuse_unknown((name,), written, keys)
        values = {}
        for key, field in keys.items():
            if key in written:
                try:
                    values[field.name] = field.metadata[READ](written[key])
                except Impossible as error:
                    self._fault((name, key), str(error))
        return section(**values)

    def _plans(self) -> dict[str, Plan]:
        written = self._table(("plans",), self.document)
        plans = {}
        for name in {**PLAN_DEFAULTS, **written}:
            path = ("plans", name)
            if not _PLAN_NAME.fullmatch(name):
                self._fault(path, "a plan's name has at most 32 lower-case letters, digits, - and _")
            plan = self._table(path, written)
            self._refuse_unknown(path, plan, PLAN_SETTINGS)
            for key, read in PLAN_SETTINGS.items():
                try:
                    if key in plan:
                        read(plan[key])
                except Impossible as error:
                    self._fault((*path, key), str(error))
            try:
                plans[name] = read_plan(name, plan)
            except Impossible:
                pass  # Told above, with its key.
        return plans

    # -------------------------------------------------------------- what is wrong

    def _refuse_unknown(self, path: KeyPath, written: Mapping[str, object], known: Iterable[str]) -> None:
        known = tuple(known)
        for key in written:
            if key not in known:
                near = difflib.get_close_matches(key.lower(), known, n=1)
                cure = f"did you mean {near[0]}?" if near else f"known here are {', '.join(known)}"
                elsewhere = [name for name, section in SECTIONS.items() if not path and key in _keys_of(section)]
                if elsewhere and not near:
                    cure = f"it belongs under [{elsewhere[0]}]"
                self._fault((*path, key), f"there is no such key; {cure}")

    def _refuse_contradictions(self, config: Configuration) -> None:
        delivery = config.delivery
        if delivery.give_up_after < delivery.retry[0]:
            self._fault(
                ("delivery", "give_up_after"),
                f'"{format_duration(delivery.give_up_after)}" is shorter than the first wait in delivery.retry, '
                f'"{format_duration(delivery.retry[0])}", so that nothing would be tried again; make it longer',
            )
        sources = {IpVersion.SIX if ":" in source else IpVersion.FOUR for source in delivery.source_addresses}
        if sources and delivery.ip not in (IpVersion.BOTH, *sources):
            self._fault(
                ("delivery", "source_addresses"),
                f'has no IPv{delivery.ip.value} address, and delivery.ip = "{delivery.ip.value}" sends over no '
                "other; add one, or change delivery.ip",
            )
        for address in config.smtp.listen:
            if address != FROM_SYSTEMD and address.port and address in config.http.listen:
                self._fault(("http", "listen"), f'"{address}" is in smtp.listen too; give one of them another port')

        written = {"certificate": config.tls.certificate, "key": config.tls.key}
        for given, missing in (("certificate", "key"), ("key", "certificate")):
            if written[given] and not written[missing]:
                self._fault(
                    ("tls", given),
                    f"needs tls.{missing} beside it: write the path of the PEM file with the {missing}, or leave both "
                    "out for a self-signed certificate",
                )

    def _refuse_too_long(self, written: Configuration, resolved: Configuration) -> None:
        """Names that are names, and yet too long for the addresses that are made with them."""
        srs_domain, from_ = resolved.forwarding.srs_domain, resolved.mail.from_
        if len(srs_domain) > LONGEST_SRS_DOMAIN:
            what = f"{len(srs_domain)} characters; rewritten senders have room for {LONGEST_SRS_DOMAIN}"
            if written.forwarding.srs_domain:
                self._fault(("forwarding", "srs_domain"), f"has {what}; write a shorter one")
            else:
                self._fault(("hostname",), f"srs.<hostname> has {what}; set forwarding.srs_domain to a shorter domain")
        if len(from_) > LONGEST_ADDRESS:
            what = f"{len(from_)} characters; an address has at most {LONGEST_ADDRESS} (RFC 5321 §4.5.3.1.3)"
            if written.mail.from_:
                self._fault(("mail", "from"), f"has {what}; write a shorter one")
            else:
                self._fault(("hostname",), f"postmaster@<hostname> has {what}; set mail.from to a shorter address")

    def _refuse_unbuilt(self, config: Configuration) -> None:
        for key, what, instead in refused(config):
            self._fault(key, f"this version of Onward cannot do {what} yet; leave it at {instead}")

    def _fault(self, path: KeyPath, what: str) -> None:
        line = line_of(self.lines, path) or 0
        # Without a file the fault is in a default, which comes from the surroundings: say how to override it.
        where = f"{self.path}:{line}: " if line else f"{self.path}: " if self.path else ""
        self.faults.append((line, f"{where}{_dotted(path)}: {what}"))

    def _stop_at_faults(self) -> None:
        if self.faults:
            raise ConfigurationError("\n".join(fault for _, fault in sorted(self.faults)))


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(octets) > LARGEST_FILE:
        raise ConfigurationError(f"{path}: too large for a configuration; was another file meant?")
    try:
        # TOML says that a text is UTF-8, and lets its lines end in CR LF.
        return octets.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: this is not UTF-8; save the file in that encoding") from None


def _keys_of(section: type) -> dict[str, dataclasses.Field[object]]:
    """The fields of a section by their names in TOML."""
    return {field.name.removesuffix("_"): field for field in dataclasses.fields(section)}


def _dotted(path: KeyPath) -> str:
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part, re.ASCII) else shown(part) for part in path)


def _directory(value: object) -> Path:
    """A directory; one that is not absolute is seen from the working directory, now and for good."""
    if not text(value) or "\0" in text(value):
        raise Impossible('is empty; write a directory like "/var/lib/onward"')
    return Path(text(value)).absolute()


def _state_directory() -> str:
    # systemd.exec(5): several directories are joined with colons; ours is the first.
    return os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or "var"


def _machine_name() -> str:
    """The machine's fully qualified name, or its plain name where it has no other.

    Only the machine itself is asked. The name is in every rewritten sender, so it must be the same at each start,
    whether or not a name server answers at that moment.
    """
    name = socket.gethostname()
    return name if "." in name else _name_in_hosts(name) or name


def _name_in_hosts(name: str) -> str | None:
    """The first qualified name that stands beside this one in /etc/hosts."""
    try:
        lines = HOSTS.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        names = line.partition("#")[0].split()[1:]
        if name.lower() in map(str.lower, names):
            for other in names:
                if "." in other and not other.startswith("localhost"):
                    return other
    return None
