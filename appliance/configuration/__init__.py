"""The one TOML file that a person writes, turned into frozen values; and what is wrong with it, in words.

`settings.py` has every key with its default, as a reader of the manual would list them; `values.py` reads the values
(sizes, time spans, addresses); `reading.py` puts a file and the settings together; `lines.py` knows on which line a key
stands, because tomllib does not say; `unbuilt.py` lists what this version refuses because it cannot do it yet.

Everyone above the model may import this room. It opens no socket, starts nothing, and never holds a secret: those are
files of their own (`appliance.privacy.secrets`).
"""

from appliance.configuration.reading import ConfigurationError, find, load, retention_ms
from appliance.configuration.settings import (
    CONTROL_SOCKET,
    ENGINE_SOCKET,
    FROM_SYSTEMD,
    Configuration,
    IpVersion,
    ListenAddress,
    MailProvider,
    SmarthostAddress,
)

__all__ = [
    "CONTROL_SOCKET",
    "ENGINE_SOCKET",
    "FROM_SYSTEMD",
    "Configuration",
    "ConfigurationError",
    "IpVersion",
    "ListenAddress",
    "MailProvider",
    "SmarthostAddress",
    "find",
    "load",
    "retention_ms",
]
