"""The one JSON text of a value, so that whoever makes it again from what it says gets the same octets."""

import json


def canonical(value: object) -> str:
    """The text of a value that is made of mappings, lists, texts, integers, truth values and None.

    Keys in order and no white space: the JSON Canonicalization Scheme (RFC 8785), as long as keys are ASCII.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
