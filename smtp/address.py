"""placeholder written first so that the model imports"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    local_part: str
    domain: str
