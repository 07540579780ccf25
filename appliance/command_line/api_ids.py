"""Ids of the API and ids as the store and the lines of the log have them, which is what people see.

The form is that of `control_api.ids`. That room brings along the library of the schema, which takes longer to load than
most commands take altogether; a test holds the two to each other.
"""

import base64
import binascii


def api_id(kind: str, own_id: str) -> str:
    """The id of a thing of this GraphQL type."""
    return base64.urlsafe_b64encode(f"{kind}:{own_id}".encode()).decode("ascii").rstrip("=")


def own_id(api_id: str) -> str:
    """What `api_id` was made of; anything else as it is."""
    try:
        octets = base64.b64decode(api_id + "=" * (-len(api_id) % 4), altchars=b"-_", validate=True)
        _, colon, own = octets.decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        return api_id
    return own if colon and own else api_id
