"""Where a request comes from: whose address, which site, with which credentials; and the cookies that it is given.

None of this is believed for nothing. A client's address is what the connection says, and what a proxy says only where
that is one of `[http] trusted_proxies`. A browser says truly which site a request comes from (Origin, Sec-Fetch-Site),
so one that carries cookies for another site is refused: these are its owner's cookies, and not its owner's wish.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from control_api.callers import Credentials
from control_api.context import Cookie, SetCookie
from control_api.errors import unauthenticated
from control_api.exchange import Headers, Request

_MOST_PROXIES = 20
"""Hops of a Forwarded header that are looked at."""
_OF_PROXIES: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Where proxies say that they speak for somebody (RFC 7239 §4, RFC 9110 §7.6.3, and by custom)."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Edges:
    """What the configuration says of the outside."""

    public_url: str
    trusted_proxies: tuple[str, ...] = ()
    local: bool = False
    """Whether this is the socket in the data directory, and every caller the operator."""

    @property
    def _is_secure(self) -> bool:
        return self.public_url.startswith("https:")

    def credentials(self, request: Request) -> Credentials:
        """What this request brings along. Raises UNAUTHENTICATED for an Authorization that is no bearer token."""
        cookies = self._cookies(request.headers)
        return Credentials(
            local=self.local,
            bearer=bearer(request.headers.get("authorization")),
            session=cookies.get(Cookie.SESSION),
            device=cookies.get(Cookie.DEVICE, ""),
            address="" if self.local else self.client_address(request),
            user_agent=request.headers.get("user-agent") or "",
        )

    def is_foreign(self, request: Request) -> bool:
        """Whether a browser sends this for a page of another site."""
        # Fetch Metadata: `none` is a person who typed the address; whoever sends no such header is no recent browser.
        if request.headers.get("sec-fetch-site") not in (None, "same-origin", "none"):
            return True
        origin = request.headers.get("origin")
        if origin is None or _origin(origin) == _origin(self.public_url):
            return False
        # Behind a tunnel the machine is reached under another port. A name could be made to lead here by whoever owns
        # it (DNS rebinding); an address can't.
        host = request.headers.get("host") or ""
        return not (_is_loopback(host) and _origin(origin) == _origin(f"http://{host}"))

    def client_address(self, request: Request) -> str:
        """Whose request this is, as text; empty where that can't be known."""
        address = request.peer or ""
        forwarded = _forwarded_for(request.headers)
        for _ in range(_MOST_PROXIES):
            if not forwarded or not self._is_trusted(address):
                break
            said = _address(forwarded.pop())
            if said is None:
                break
            address = said
        return address

    def speaks_for_others(self, address: str) -> bool:
        """Whether many people may come from this address: from a proxy, and from this machine, where one may be."""
        return self._is_trusted(address) or _is_loopback_address(address)

    def is_from_here(self, request: Request) -> bool:
        """Whether a program of this machine asks, for itself and not for somebody else.

        No proxy is believed here, however trusted: where one has put a word in, or where another name was asked for
        than one of this machine's own, it is not known for whom it speaks.
        """
        if self.local:
            return True
        if any(request.headers.get(name) is not None for name in _OF_PROXIES):
            return False
        return _is_loopback_address(request.peer or "") and _is_loopback(request.headers.get("host") or "")

    def set_cookie(self, what: SetCookie) -> tuple[bytes, bytes]:
        """The header that sets a cookie, or takes it away."""
        attributes = [f"{self._name(what.cookie)}={what.value}", "Path=/", f"Max-Age={what.lives_s}", "HttpOnly"]
        # Lax: who follows a link to the appliance arrives as who they are; nothing is changed by a GET.
        attributes += ["SameSite=Lax", *(["Secure"] if self._is_secure else [])]
        return b"set-cookie", "; ".join(attributes).encode("ascii")

    def _name(self, cookie: Cookie) -> str:
        # RFC 6265bis §4.1.3.2: with this prefix no other host of the domain can set or read it.
        return f"__Host-{cookie.value}" if self._is_secure else cookie.value

    def _cookies(self, headers: Headers) -> dict[Cookie, str]:
        found: dict[Cookie, str] = {}
        by_name = {self._name(cookie): cookie for cookie in Cookie}
        for pair in "; ".join(headers.every("cookie")).split(";"):
            name, _, value = pair.strip().partition("=")
            cookie = by_name.get(name)
            if cookie is not None:
                found.setdefault(cookie, value)
        return found

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in ipaddress.ip_network(network) for network in self.trusted_proxies)


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header; None without one. Raises UNAUTHENTICATED for any other scheme."""
    if authorization is None:
        return None
    # RFC 9110 §11.1: the scheme is not case-sensitive.
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthenticated("Authorization takes a bearer token here.")
    return token.strip()


def _forwarded_for(headers: Headers) -> list[str]:
    """What proxies say of whom they speak for, the nearest one's word last."""
    forwarded, said = headers.get("forwarded"), headers.get("x-forwarded-for")
    by_standard = [_said_by(element) for element in (forwarded or "").split(",")]
    by_custom = (said or "").split(",")
    if forwarded is None or said is None:
        return by_custom if forwarded is None else by_standard
    # A proxy knows one of the two and lets the other through, as the client has made it up. Where they differ, it can't
    # be told which that is.
    return by_standard if _address(by_standard[-1]) == _address(by_custom[-1]) else []


def _said_by(element: str) -> str:
    """Whom a forwarded-element is for (RFC 7239 §4); empty where it says nothing of that.

    A value with a colon is quoted, and an IPv6 address stands in brackets. None of them has a comma or a semicolon.
    """
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _address(said: str) -> str | None:
    """`192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` or `[2001:db8::1]:4711` as an address; None for anything else."""
    said = said.strip()
    if said.startswith("["):
        said = said[1:].partition("]")[0]
    elif said.count(":") == 1:
        said = said.partition(":")[0]
    try:
        return str(ipaddress.ip_address(said))
    except ValueError:
        return None


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port (RFC 6454 §4); None for what has no such thing."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname and port else None


def _is_loopback_address(address: str) -> bool:
    parsed = _parsed(address)
    return parsed is not None and parsed.is_loopback


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    # A socket for both versions, as systemd opens them, shows an IPv4 client like this (RFC 4291 §2.5.5.2).
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
