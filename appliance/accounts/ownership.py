"""Whose a domain is, as its DNS says, and what its DNS has to say for mail to flow.

An account proves that a domain is its own by a TXT record whose value is a MAC of the domain's name and the account's
id. So nothing is stored that could get lost or be read by others, the record that was asked for once stays right
however often the domain is removed and added again, and nobody's record proves anything for another account. Once seen
it need not stay: a domain does not lose its mail by a tidy-up of its zone.

What could not be found out is not taken for missing: nothing is proven by it, and nothing is said to be wrong.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from appliance.accounts.rows import every
from appliance.model.domain import Domain
from appliance.model.ids import id_source
from appliance.model.refused import Refused
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import DOMAINS
from appliance.privacy.sealing import Sealer
from appliance.routing.changes import announcement
from appliance.storage.records import Duplicate, RecordStore, Update

CHALLENGE_LABEL = "_onward-challenge"
"""RFC 8552 §1.1: an underscore keeps it apart from the names of hosts."""

CHALLENGE_PREFIX = "onward-verification="
"""Tells people who find the record years later what it was for."""

_CONTEXT = "domains.challenge"


class DnsPurpose(Enum):
    """What a record is for."""

    OWNERSHIP = "ownership"
    MX = "mx"
    SPF = "spf"
    DKIM = "dkim"
    DMARC = "dmarc"
    MTA_STS = "mta-sts"
    TLS_RPT = "tls-rpt"


@dataclass(frozen=True, slots=True)
class Question:
    """What the DNS is asked."""

    name: str
    type: str
    """`MX` or `TXT`."""


LookUp = Callable[[Sequence[Question]], Mapping[Question, tuple[str, ...] | None]]
"""Asks the DNS now. An MX is told as `10 mx.example.org`, lower case and without the last dot. () where the authority
says that there is none, None where nothing could be found out."""


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record to publish, and what DNS answers."""

    purpose: DnsPurpose
    name: str
    type: str
    expected: str
    """One value that is right; others may be as well."""
    found: tuple[str, ...]
    ok: bool
    required: bool
    """Mail does not flow without it."""
    advice: str | None
    """What is wrong and how to mend it; None where it is ok."""
    answered: bool = True
    """False where the DNS could not be asked: then nothing is known of the record, and it is not ok either."""


class Ownership:
    """Asks the DNS about domains. Every method may raise Refused, and StoreUnavailable."""

    def __init__(
        self, records: RecordStore, hostname: str, sealer: Sealer, look_up: LookUp, clock: Clock = wall_clock
    ) -> None:
        """`hostname` is what an MX has to name; `sealer` makes the MACs, and has to be of a key that stays."""
        self._records = records
        self._hostname = hostname.lower().removesuffix(".")
        self._sealer = sealer
        self._look_up = look_up
        self._clock = clock
        self._ids = id_source(clock)

    def challenge(self, domain: Domain) -> str:
        """The value of the record that proves the domain to be its account's."""
        mac = self._sealer.mac(f"{domain.account_id}\0{domain.name}", _CONTEXT)
        return CHALLENGE_PREFIX + base64.b32encode(mac).decode("ascii").rstrip("=").lower()

    def records_of(self, domain: Domain) -> tuple[DnsRecord, ...]:
        """The records to publish for a domain, each with what DNS answers now."""
        return self._looked_up(domain)

    def check(self, domain: Domain) -> tuple[Domain, tuple[DnsRecord, ...]]:
        """Look the records up now; a domain whose proof is there is verified from then on.

        Refused where that could not be found out (DNS_UNAVAILABLE), and where another account has proven it
        (PROVEN_ELSEWHERE).
        """
        records = self._looked_up(domain)
        ownership = records[0]
        if domain.verified:
            return domain, records
        if not ownership.ok:
            if not ownership.answered:
                why = f"{ownership.name} could not be looked up just now. Try again in a moment."
                raise Refused(why, "id", "DNS_UNAVAILABLE")
            return domain, records
        return self._verified(domain), records

    def _verified(self, domain: Domain) -> Domain:
        rivals = every(self._records, Domain, {"name": domain.name, "verified": True})
        if any(rival.id != domain.id for rival in rivals):
            raise _proven_elsewhere(domain.name)
        changes = {"verified": True, "verified_name": domain.name}
        try:
            update = Update(DOMAINS, {"id": domain.id}, changes)
            told = announcement(self._ids, self._clock, domains=[domain.id], accounts=[domain.account_id])
            touched, *_ = self._records.apply([update, *told])
        except Duplicate:
            raise _proven_elsewhere(domain.name) from None
        if not touched:
            raise Refused(f"{domain.name} is not hosted here any more.", "id")
        return replace(domain, verified=True)

    def _looked_up(self, domain: Domain) -> tuple[DnsRecord, ...]:
        name = domain.name
        ownership = Question(f"{CHALLENGE_LABEL}.{name}", "TXT")
        mx, spf, dmarc = Question(name, "MX"), Question(name, "TXT"), Question(f"_dmarc.{name}", "TXT")
        found = self._look_up([ownership, mx, spf, dmarc])
        return (
            self._ownership(domain, ownership, found[ownership]),
            self._mx(mx, found[mx]),
            _spf(spf, found[spf]),
            _dmarc(dmarc, found[dmarc]),
        )

    def _ownership(self, domain: Domain, asked: Question, found: tuple[str, ...] | None) -> DnsRecord:
        expected = self.challenge(domain)
        advice = None
        if found is not None and expected not in (text.strip() for text in found):
            if any(text.strip().startswith(CHALLENGE_PREFIX) for text in found):
                advice = (
                    "The record there is for another account, or was copied in part. Add one with exactly the expected "
                    "value; others may stay beside it."
                )
            else:
                advice = (
                    "Add this record where the domain's DNS is managed, then check again. Some providers put the "
                    f"domain behind the name by themselves: then type only {CHALLENGE_LABEL} as the name."
                )
            if domain.verified:
                advice = None  # Seen before, and it need not stay.
        return _record(DnsPurpose.OWNERSHIP, asked, expected, found, advice, required=not domain.verified)

    def _mx(self, asked: Question, found: tuple[str, ...] | None) -> DnsRecord:
        advice = None if found is None else self._fault_of_mx(found)
        return _record(DnsPurpose.MX, asked, f"10 {self._hostname}", found, advice, required=True)

    def _fault_of_mx(self, found: tuple[str, ...]) -> str | None:
        hosts = sorted((int(preference), host) for preference, _, host in (text.partition(" ") for text in found))
        own = [preference for preference, host in hosts if host == self._hostname]
        if not hosts:
            return f"No server takes mail for the domain: add an MX record that names {self._hostname}."
        if not own:
            others = ", ".join(host or "nobody (a null MX)" for _, host in hosts)
            return (
                f"Mail goes elsewhere, to {others}: replace these MX records by one for {self._hostname}. Do it once "
                "the aliases are made, or their mail is refused."
            )
        rivals = [host for preference, host in hosts if host != self._hostname and preference <= own[0]]
        if rivals:
            return (
                f"Part of the mail goes to {', '.join(rivals)}, whose preference is no worse than ours: remove these "
                f"MX records, or give them a higher number than the one for {self._hostname}."
            )
        return None


_UNANSWERED = "The DNS gave no answer just now, so nothing is known about this record. Check again in a moment."


def _record(
    purpose: DnsPurpose,
    asked: Question,
    expected: str,
    found: tuple[str, ...] | None,
    advice: str | None,
    *,
    required: bool = False,
) -> DnsRecord:
    if found is None:
        advice = _UNANSWERED
    return DnsRecord(
        purpose=purpose,
        name=asked.name,
        type=asked.type,
        expected=expected,
        found=found or (),
        ok=advice is None,
        required=required,
        advice=advice,
        answered=found is not None,
    )


def _spf(asked: Question, found: tuple[str, ...] | None) -> DnsRecord:
    expected = "v=spf1 mx ~all"
    # RFC 7208 §4.5: what does not begin with exactly this word is another record, and there is to be one.
    policies = [text for text in found or () if (text.lower() + " ").startswith("v=spf1 ")]
    advice = None
    if found is not None and not policies:
        advice = (
            "Nothing says who may send mail in the name of the domain, so anybody may try. Add this record, and put "
            "whoever else sends for you in front of ~all. What is forwarded from here does not depend on it."
        )
    elif len(policies) > 1:
        advice = "There is more than one SPF record, which makes all of them void (RFC 7208 §4.5): make one of them."
    elif any(term in ("all", "+all") for policy in policies for term in policy.lower().split()):
        advice = "The record ends in +all, which lets everybody send in the name of the domain: end it in ~all."
    return _record(DnsPurpose.SPF, asked, expected, tuple(policies) if found is not None else None, advice)


def _dmarc(asked: Question, found: tuple[str, ...] | None) -> DnsRecord:
    expected = "v=DMARC1; p=quarantine"
    # RFC 9989 §4.7: the version comes first, and more than one record counts as none.
    policies = [text for text in found or () if text.replace(" ", "").startswith("v=DMARC1;") or text == "v=DMARC1"]
    wishes = [tag.strip().lower() for policy in policies for tag in policy.split(";")]
    advice = None
    if found is not None and not policies:
        advice = (
            "Nothing asks receivers to refuse forgeries of the domain. Add this record; a record of the domain above "
            "counts too, where there is one."
        )
    elif len(policies) > 1:
        advice = "There is more than one DMARC record, and so none counts: leave one of them."
    elif any(wish.replace(" ", "") == "p=none" for wish in wishes):
        advice = "The policy only watches (p=none): ask for p=quarantine once the reports show no mail of your own."
    return _record(DnsPurpose.DMARC, asked, expected, tuple(policies) if found is not None else None, advice)


def _proven_elsewhere(name: str) -> Refused:
    return Refused(
        f"Another account of this appliance has proven that {name} is its own. Where that is an account of yours, "
        "remove the domain there first; otherwise ask the operator.",
        "id",
        "PROVEN_ELSEWHERE",
    )
