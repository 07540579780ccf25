"""Mail that the appliance itself sends: always from the null reverse-path, so that nothing ever bounces back and forth.

A recipient at a hosted domain is followed through its aliases here, inside, like any other hosted address: the MX
would only lead back to us.
"""

from collections.abc import Sequence

from appliance.model.delivery import Delivery, DeliveryState, Recipient
from appliance.model.ids import IdSource
from appliance.routing.route import route
from appliance.routing.snapshot import Snapshot
from appliance.storage.spool import Accept, AddPart, Operation
from smtp.address import Address


def own_message(
    snapshot: Snapshot, message_id: str, recipient: Address, octets: bytes, now: int, new_id: IdSource
) -> Sequence[Operation]:
    """What has to be committed to send one message of ours: nothing where it has nowhere to go.

    Its deliveries are WAITING and due at once; whoever commits them wakes the scheduler.
    """
    inside = snapshot.hosted(recipient.key[1])
    if inside is not None and inside.domain.verified:
        targets = route(snapshot, recipient, now).targets
    else:
        targets = (recipient,)
    deliveries = [
        Delivery(
            id=new_id(),
            message_id=message_id,
            accepted_at=now,
            size=len(octets),
            priority=0,
            sender="",
            return_path="",
            target=target,
            recipients=(Recipient(str(recipient), ""),),
            eight_bit=False,
            state=DeliveryState.WAITING,
            next_attempt_at=now,
        )
        for target in targets
    ]
    return (AddPart(message_id, 0, octets), Accept(deliveries)) if deliveries else ()
