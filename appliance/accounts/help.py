"""Help: accounts ask the operators, and may let them read their delivery log for it.

An operator reads a member's log under a help request that allows it, and in no other way. Whoever shows a log calls
`may_read_log` first, and `record_access` before anything is shown: a reading that could not be written down has not
happened.
"""

from appliance.accounts.rows import every, get, insert, some
from appliance.accounts.texts import one_line, paragraphs
from appliance.model.account import Account
from appliance.model.help import HelpReply, HelpRequest, LogAccess
from appliance.model.ids import IdSource, id_source
from appliance.model.refused import Refused
from appliance.model.time import DAY_MS, Clock, wall_clock
from appliance.privacy.declarations import HELP_REPLIES, HELP_REQUESTS
from appliance.storage.records import Change, Page, Range, RecordStore, Update

MAX_SUBJECT_CHARACTERS = 200
"""A line that can be read in a list."""

MAX_BODY_CHARACTERS = 10_000
"""Some pages, with the lines of a log in them; what is longer is a file, and those are not kept here."""

MAX_OPEN_REQUESTS = 10
"""Of one account at once: more questions at a time belong into one."""

MAX_REQUESTS = 500
"""Of one account that are kept, open or closed: nobody fills the store by asking."""

MAX_REPLIES = 200
"""To one request."""

MAX_LOG_ACCESS_MS = 30 * DAY_MS
"""The longest grant at a time. Nobody remembers what was allowed last year."""

MAX_QUERY_CHARACTERS = 1000
"""Of what was asked of a log; what is longer is cut."""

SHOWN_ACCESSES = 1000
"""How many readings of its log an account sees, from the latest back."""


class Help:
    """The help requests of a record store. Every method may raise StoreUnavailable; what changes something, Refused."""

    def __init__(self, records: RecordStore, clock: Clock = wall_clock, ids: IdSource | None = None) -> None:
        self._records = records
        self._clock = clock
        self._ids = ids or id_source(clock)

    # ------------------------------------------------------------------ asking and answering

    def ask(self, account: Account, subject: str, body: str, log_access_until: int | None = None) -> HelpRequest:
        """Ask the operators; until `log_access_until` they may read the account's delivery log."""
        subject = one_line(subject, "subject", MAX_SUBJECT_CHARACTERS)
        body = paragraphs(body, "body", MAX_BODY_CHARACTERS)
        now = self._clock()
        _require_reasonable(log_access_until, now, "logAccessUntil")
        # Two that ask at the same instant may pass together: the limits are of use, not of safety.
        of_account = {"account_id": account.id}
        if self._records.count(HELP_REQUESTS, {**of_account, "closed_at": None}) >= MAX_OPEN_REQUESTS:
            raise Refused(f"You have {MAX_OPEN_REQUESTS} open help requests: close one, or add to it.", "subject")
        if self._records.count(HELP_REQUESTS, of_account) >= MAX_REQUESTS:
            raise Refused(
                f"You have {MAX_REQUESTS} help requests. Those that are closed are erased in time.", "subject"
            )
        request = HelpRequest(self._ids(), account.id, subject, body, now, log_access_until)
        self._records.apply([insert(request)])
        return request

    def reply(self, request_id: str, body: str, *, from_operator: bool, close: bool = False) -> HelpRequest:
        """Answer an open request, and close it with that where asked. Who may do so, the caller knows."""
        body = paragraphs(body, "body", MAX_BODY_CHARACTERS)
        request = self._open(request_id, "id")
        if self._records.count(HELP_REPLIES, {"help_request_id": request.id}) >= MAX_REPLIES:
            raise Refused(f"This request has {MAX_REPLIES} replies: ask in a new one.", "body")
        now = self._clock()
        changes: list[Change] = [insert(HelpReply(self._ids(), request.id, from_operator, body, now))]
        if close:
            # A closed request lets nobody read: the grant was for answering it.
            closed = {"closed_at": now, "log_access_until": None}
            changes.append(Update(HELP_REQUESTS, {"id": request.id, "closed_at": None}, closed))
        self._records.apply(changes)
        return self.request(request.id) or request

    def set_log_access(self, request_id: str, until: int | None) -> HelpRequest:
        """Let operators read the account's log until then; None ends it at once. For the request's own account."""
        request = self._open(request_id, "helpRequestId")
        _require_reasonable(until, self._clock(), "until")
        (touched,) = self._records.apply(
            [Update(HELP_REQUESTS, {"id": request.id, "closed_at": None}, {"log_access_until": until})]
        )
        changed = self.request(request.id) if touched else None
        if changed is None:
            raise _closed("helpRequestId")
        return changed

    # ------------------------------------------------------------------ reading requests

    def request(self, request_id: str) -> HelpRequest | None:
        """The request of this id, whoever's it is."""
        return get(self._records, HelpRequest, {"id": request_id})

    def of_account(self, account_id: str) -> list[HelpRequest]:
        """The requests of an account, the latest first."""
        return some(self._records, HelpRequest, {"account_id": account_id}, _latest(MAX_REQUESTS))

    def replies(self, request_id: str) -> list[HelpReply]:
        """What has been answered, in order."""
        return some(self._records, HelpReply, {"help_request_id": request_id}, Page(limit=MAX_REPLIES))

    def page(self, page: Page, *, open_ones: bool | None = None) -> list[HelpRequest]:
        """The requests of everybody, or those that are open, or those that are closed."""
        return some(self._records, HelpRequest, _openness(open_ones), page)

    def count(self, *, open_ones: bool | None = None) -> int:
        """How many there are of them."""
        return self._records.count(HELP_REQUESTS, _openness(open_ones))

    # ------------------------------------------------------------------ reading logs

    def may_read_log(self, account_id: str) -> HelpRequest | None:
        """The request under which operators may read this account's log now; None where they may not.

        Of several the latest: that is the one that is being answered.
        """
        now = self._clock()
        granting = {"account_id": account_id, "closed_at": None, "log_access_until": Range(after=now)}
        found = some(self._records, HelpRequest, granting, _latest(1))
        return found[0] if found and found[0].lets_read(now) else None

    def record_access(self, grant: HelpRequest, operator: str, query: str) -> None:
        """Write down that this operator is about to read the log of the grant's account, and what is asked for.

        `operator` is what the account will read: an email address. Nothing is to be shown where this raises.
        """
        access = LogAccess(
            self._ids(), grant.account_id, grant.id, operator, query[:MAX_QUERY_CHARACTERS], self._clock()
        )
        self._records.apply([insert(access)])

    def accesses(self, account_id: str) -> list[tuple[LogAccess, HelpRequest]]:
        """Every time an operator has read this account's log, with the request it was under; the latest first."""
        accesses = some(self._records, LogAccess, {"account_id": account_id}, _latest(SHOWN_ACCESSES))
        requests = {request.id: request for request in every(self._records, HelpRequest, {"account_id": account_id})}
        # Both are swept by the same span; between two strokes of the broom one may be gone before the other.
        return [(each, requests[each.help_request_id]) for each in accesses if each.help_request_id in requests]

    def _open(self, request_id: str, field: str) -> HelpRequest:
        request = self.request(request_id)
        if request is None:
            raise Refused("There is no such help request.", field)
        if not request.open:
            raise _closed(field)
        return request


def _closed(field: str) -> Refused:
    return Refused("This help request is closed: ask in a new one.", field)


def _latest(limit: int) -> Page:
    return Page(limit=limit, newest_first=True)


def _openness(open_ones: bool | None) -> dict[str, object]:
    if open_ones is None:
        return {}
    return {"closed_at": None if open_ones else Range(since=0)}


def _require_reasonable(until: int | None, now: int, field: str) -> None:
    if until is None:
        return
    if until <= now:
        raise Refused("That time is over: choose a later one.", field)
    if until - now > MAX_LOG_ACCESS_MS:
        raise Refused(f"Choose a time within {MAX_LOG_ACCESS_MS // DAY_MS} days; it can be set anew then.", field)
