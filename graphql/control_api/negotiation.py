"""Which of the media types that we have for an answer a client likes best (RFC 9110 §12.5.1)."""

from collections.abc import Mapping

Offers = Mapping[str, tuple[int, str]]
"""By media range, in lower case: the media type that is meant by it, and before that its rank, by which the highest
wins where a client likes several as much."""


def preferred(accept: str, offers: Offers) -> str | None:
    """The media type for a client that sends this Accept; None where it would take none of ours."""
    best: tuple[float, int, str] | None = None
    for one in accept.split(","):
        name, *parameters = (part.strip().lower() for part in one.split(";"))
        if name in offers:
            found = (_quality(parameters), *offers[name])
            if found[0] > 0 and (best is None or found > best):
                best = found
    return best[2] if best else None


def _quality(parameters: list[str]) -> float:
    """RFC 9110 §12.4.2: between 0 and 1; 1 without one, and 0 for what is no number."""
    for one in parameters:
        if one.startswith("q="):
            try:
                quality = float(one[2:])
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0
