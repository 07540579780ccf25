"""What this room asks of the record store about accounts."""

from appliance.model.account import Account
from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.record_rows import row_to_account
from appliance.storage.records import RecordStore, Where


def account_where(records: RecordStore, where: Where) -> Account | None:
    """The one account that meets the conditions, or None."""
    row = records.get(ACCOUNTS, where)
    return None if row is None else row_to_account(row)
