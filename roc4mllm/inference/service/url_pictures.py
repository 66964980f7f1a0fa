"""
Pictures behind URLs that a stranger names, fetched without lending him this machine's place in its network.

http and https only; every address that a host's name stands for must be public, and the connection goes to the very
address that was checked, so that a name whose answer changes meanwhile leads nowhere else. A redirect is a new URL
with the same checks. Time is bounded over all of it, and bytes are counted as they come. Proxies of the environment
are not used: they would look the name up again.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import h11

from ...processing_roc4mllm.image_reading_aesthetics import PictureError

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}
IN_URLS = "!#$%&'()*+,/:;=?@[]~"  # what stands in them as it is
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # what else is global in IPv6 leads on to IPv4 or to nowhere
# What the registries of special addresses, or this Python's copy of them, count as global and no picture comes from.
SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's host: certificates and settings of a virtual machine
        "192.0.0.0/24",  # protocol assignments; Oracle's cloud answers 192.0.0.192 with a machine's metadata
        "192.88.99.0/24",  # relays to 6to4
        "161.26.0.0/16",  # IBM Cloud's name servers and mirrors, for its own machines only
        "166.8.0.0/14",  # IBM Cloud's service endpoints, likewise
        "3fff::/20",  # documentation
    )
]
Resolve = Callable[[str, int], Awaitable[list[str]]]
Hold = Callable[[int], None]


class UrlReader:
    """
    Fetches pictures.

    Args:
        max_bytes (`int`): Of one picture.
        timeout (`float`): Seconds for one picture, from looking up its host to its last byte; waiting apart.
        num_connections (`int`, *optional*, defaults to 16): Downloads at once.
        resolve (callable, *optional*): Addresses of a host and port; the system's by default.
        allowed (`Callable[[str], bool]`, *optional*, defaults to [`is_public`]): Whether an address may be asked.
    """

    def __init__(
        self,
        max_bytes: int,
        timeout: float,
        num_connections: int = 16,
        resolve: Resolve | None = None,
        allowed: Callable[[str], bool] | None = None,
    ):
        self.max_bytes, self.timeout = max_bytes, timeout
        self._turn = asyncio.Semaphore(num_connections)
        self._resolve, self._allowed = resolve or addresses_of, allowed or is_public

    async def read(self, url: str, hold: Hold) -> bytes:
        """
        The bytes behind a URL.

        Args:
            url (`str`): Where.
            hold (`Callable[[int], None]`): Told how many bytes came, each time that some came; what it raises ends the
                download.

        Raises:
            PictureError: If it may not be fetched, or cannot be within the limits.
        """
        try:
            async with self._turn, asyncio.timeout(self.timeout):  # others' downloads take none of its time
                return await self._follow(url, hold)
        except TimeoutError as error:
            raise PictureError(f"cannot be downloaded within {self.timeout:g} seconds") from error
        except PictureError:
            raise
        except (OSError, ValueError, h11.ProtocolError) as error:  # ValueError: of a redirect that is no URL
            raise PictureError(f"cannot be downloaded: {reason(error)}") from error

    async def _follow(self, url: str, hold: Hold) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._ask(split(url), hold)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise PictureError(f"cannot be downloaded: more than {MAX_REDIRECTS} redirects")

    async def _ask(self, url: SplitResult, hold: Hold) -> bytes | str:
        """The content, or where a redirect leads."""
        host, port = url.hostname or "", url.port or PORTS[url.scheme]
        async with self._connection(url.scheme, host, port) as (reader, writer):
            connection = h11.Connection(h11.CLIENT)
            request = h11.Request(method="GET", target=target_of(url), headers=headers_for(url))
            writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            await writer.drain()
            response = await next_event(connection, reader)
            while isinstance(response, h11.InformationalResponse):
                response = await next_event(connection, reader)
            headers = dict(response.headers)
            if response.status_code in REDIRECTS and b"location" in headers:
                return quote(headers[b"location"], safe=IN_URLS)  # what is not ASCII comes as it likes
            if response.status_code != 200:
                raise PictureError(f"cannot be downloaded: the server answered {response.status_code}")
            self._check_size(int(headers.get(b"content-length", b"0")))
            return await self._content(connection, reader, hold)

    async def _content(self, connection: h11.Connection, reader: asyncio.StreamReader, hold: Hold) -> bytes:
        content = bytearray()
        while not isinstance(event := await next_event(connection, reader), h11.EndOfMessage):
            hold(len(event.data))
            content += event.data
            self._check_size(len(content))
        return bytes(content)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise PictureError(f"too large: {size} bytes or more, at most {self.max_bytes} are read here")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()  # reads all the authorities that the system trusts

    @asynccontextmanager
    async def _connection(self, scheme: str, host: str, port: int) -> Any:
        """A connection to one of the addresses that were checked, and that the name is not looked up for again."""
        addresses = await self._resolve(host, port)
        if not addresses or not all(map(self._allowed, addresses)):
            raise PictureError("its host is not a public address of the internet, which is all that is fetched")
        # the certificate has to be the name's, whatever the address
        tls = {"ssl": self._tls, "server_hostname": host} if scheme == "https" else {}
        reader, writer = await open_first(addresses, port, tls)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # nothing is left to be said, and a goodbye could take for ever


async def addresses_of(host: str, port: int) -> list[str]:
    """What the system knows a host by."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet: not private, loopback, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip not in GLOBAL_UNICAST or ip.sixtofour is not None or ip.teredo is not None:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or any(ip in network for network in SPECIAL))


async def open_first(addresses: list[str], port: int, tls: dict[str, Any]) -> Any:
    """A connection to the first address that answers."""
    for address in addresses[:-1]:
        try:
            return await asyncio.open_connection(address, port, **tls)
        except OSError:
            continue
    return await asyncio.open_connection(addresses[-1], port, **tls)


def split(url: str) -> SplitResult:
    """A URL in parts, if it is one that may be asked for."""
    try:
        parts = urlsplit(url.strip())
        is_plain = parts.port != 0 and parts.username is None  # a port that is no number raises, as does …
        (parts.hostname or "").encode("idna")  # … a name that no host can have
    except ValueError as error:
        raise PictureError(f"not a URL: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname or not is_plain:
        raise PictureError("not a URL that is fetched here; expected http:// or https://, a host, no user name")
    return parts


def target_of(url: SplitResult) -> str:
    """Path and query as they stand in a request."""
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return quote(target, safe=IN_URLS)


def headers_for(url: SplitResult) -> list[tuple[str, str]]:
    """Who is asked, and that nothing but the plain picture is wanted."""
    name = url.hostname or ""
    host = (f"[{name}]" if ":" in name else name.encode("idna").decode()) + (f":{url.port}" if url.port else "")
    headers = {"Host": host, "User-Agent": "roc4mllm", "Accept": "image/*", "Accept-Encoding": "identity"}
    return [*headers.items(), ("Connection", "close")]


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    """The next part of an answer."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(65536))
    if isinstance(event, h11.ConnectionClosed):
        raise h11.RemoteProtocolError("the connection broke off")
    return event


def reason(error: Exception) -> str:
    """One line about an error, without the numbers and addresses of this machine."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, socket.gaierror):
        return "its host is not known"
    return type(error).__name__ if isinstance(error, OSError) else str(error)


__all__ = ["UrlReader", "is_public"]
