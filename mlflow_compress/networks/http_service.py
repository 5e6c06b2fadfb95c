"""A service over HTTP as its client sees it: its address, one open connection, and what its answers mean."""

from __future__ import annotations

import http.client
import re
import selectors
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mlflow_compress.errors import CompressError, RecipeError, WeightsError, WorkerError, named_line
from mlflow_compress.plain_text import plain

_SCHEMES = ("http", "https")
_SERVICE = re.compile(r"https?://", re.IGNORECASE)
_NOT_IN_ADDRESS = re.compile(r"[^\x21-\x7e]")
_MOST_BYTES = 256 * 2**20  # of an answer
_CHUNK_BYTES = 2**16
_LONGEST_EXCERPT = 200  # characters of an answer in a message
_SECRET = "***"  # noqa: S105  (what a message shows instead of one)


class ServiceError(WorkerError):
    """A request got no answer.

    Args:
        message: The message.
        kind: What happened, for a count of errors: `no connection`, `timeout` or `connection lost`.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Address:
    """The address of a service, without secrets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """The address without its scheme, as the name of a model: `localhost:8000/invocations`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{self.path}".rstrip("/")


def is_address(name: str) -> bool:
    """Return whether a name is the address of a web page or service."""
    return _SERVICE.match(name) is not None


def address_of(url: str) -> Address:
    """Parse the address of a service.

    Raises:
        RecipeError: It is not one, or it contains something that may be secret: an address is logged. The message does
            not repeat such a part.
    """
    parts = urlsplit(_NOT_IN_ADDRESS.sub(" ", url))
    if "@" in url or parts.query or parts.fragment:
        raise RecipeError(
            "The address of a service must not contain a user name, a password or a query (`@`, `?`, `#`): it is "
            "logged. Leave them out, and send a secret as a header from an environment variable: "
            "-O headers=Authorization=VARIABLE"
        )
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in _SCHEMES or not host or _NOT_IN_ADDRESS.search(url):
        raise RecipeError(
            f"{plain(url, _LONGEST_EXCERPT)} is not the address of a service: it must be http://HOST:PORT/PATH or "
            "https://HOST/PATH, in ASCII and without spaces."
        )
    return Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path or "/")


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    status: int
    body: bytes
    location: str = ""
    is_last: bool = False  # the service closes the connection after it

    @property
    def is_ok(self) -> bool:
        """Whether the service accepted the request."""
        return 200 <= self.status < 300


@dataclass
class Connection:
    """One connection to a service. It stays open between requests, and serves one thread.

    It follows no redirect, uses no proxy, and reads no password file: nothing but the given headers is sent.

    Attributes:
        address: The service.
        timeout_s: Time limit of one request, until the last byte of its answer.
        headers: Headers of every request. Their values are secret: no message shows them.
    """

    address: Address
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    _http: Any = field(default=None, init=False, repr=False)

    def post(self, body: Any, headers: Mapping[str, str]) -> Answer:
        """Send a body of bytes to the service's own path; return the answer, whatever its status.

        Raises:
            ServiceError: There is no whole answer within the time limit.
        """
        return self._send("POST", self.address.path, body, headers)

    def open(self) -> None:
        """Open it, if it is not open.

        Raises:
            ServiceError: There is no service.
        """
        self._opened()

    def get(self, path: str) -> Answer:
        """Get another path of the same server (see `post`)."""
        return self._send("GET", path, None, {})

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._http is not None:
            self._http.close()

    def error_of(self, answer: Answer) -> CompressError | None:
        """Return the error for an answer with which the service did not accept a request; None if it did."""
        if answer.is_ok:
            return None
        status, url = answer.status, f"{self.address.scheme}://{self.address.name}"
        excerpt = self.without_secrets(plain(answer.body[:2000].decode(errors="replace"), _LONGEST_EXCERPT))
        what = f"{url} answered with status {status}{f': {excerpt}' if excerpt else ''}"
        if answer.location:
            target = self.without_secrets(plain(answer.location.partition("?")[0], _LONGEST_EXCERPT))
            return RecipeError(f"{url} redirects to {target}. Redirects are not followed: use that address.")
        if status in (401, 403):
            return WeightsError(
                f"{what}. It requires a secret: put it into an environment variable, and use "
                "-O headers=Authorization=VARIABLE --trust"
            )
        if 400 <= status < 500 and status not in (408, 429):
            return RecipeError(f"{what}. Check the path, the model's name in it, and the options inputs and body.")
        return WorkerError(f"{what}. Look into the log of the service.")

    def _send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        deadline = time.monotonic() + self.timeout_s
        try:
            socket = self._opened()
            socket.settimeout(self.timeout_s)
            self._http.request(method, path, body, {**headers, **self.headers})
            socket.settimeout(max(deadline - time.monotonic(), 0.001))
            response = self._http.getresponse()
            target, is_last = response.headers.get("Location", ""), response.will_close
            answer = Answer(response.status, _read(response, socket, deadline), target, is_last)
        except ServiceError:
            self.close()
            raise
        except TimeoutError:
            self.close()
            raise ServiceError(
                f"{self.address.name} did not answer within {self.timeout_s:g} s. -O timeout=SECONDS allows more.",
                "timeout",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = self.without_secrets(named_line(error, _LONGEST_EXCERPT))
            raise ServiceError(
                f"{self.address.name} closed the connection, or did not answer in HTTP: {reason}", "connection lost"
            ) from None
        except BaseException:  # an interrupt: an answer may be on its way
            self.close()
            raise
        return answer

    def _opened(self) -> Any:
        """Return the socket of the open connection; open it if the service closed it.

        Raises:
            ServiceError: There is no service.
        """
        if self._http is None:
            self._http = self._new()
        if self._http.sock is not None and _is_readable(self._http.sock):  # closed, or an answer that nobody requested
            self._http.close()
        if self._http.sock is None:
            try:
                self._http.connect()
            except TimeoutError:
                raise ServiceError(
                    f"{self.address.name} can't be reached within {self.timeout_s:g} s.", "timeout"
                ) from None
            except OSError as error:
                raise ServiceError(
                    f"There is no service at {self.address.scheme}://{self.address.name}: "
                    f"{named_line(error, _LONGEST_EXCERPT)}. Start it, and check the host and the port.",
                    "no connection",
                ) from None
        return self._http.sock

    def _new(self) -> http.client.HTTPConnection:
        where = self.address.host, self.address.port
        if self.address.scheme == "https":
            return http.client.HTTPSConnection(*where, timeout=self.timeout_s, context=ssl.create_default_context())
        return http.client.HTTPConnection(*where, timeout=self.timeout_s)

    def without_secrets(self, text: str) -> str:
        """Return a text without the values of the headers: a service may repeat them."""
        for value in self.headers.values():
            for secret in (value, value.rpartition(" ")[2]):
                text = text.replace(secret, _SECRET)
        return text


def _read(response: http.client.HTTPResponse, socket: Any, deadline: float) -> bytes:
    """Read the rest of an answer before the deadline, however slowly it arrives."""
    parts: list[bytes] = []
    done, missing = 0, None if response.chunked else response.length
    while missing is None or missing > 0:
        if (seconds := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        socket.settimeout(seconds)
        part = response.read1(_CHUNK_BYTES if missing is None else min(missing, _CHUNK_BYTES))
        if not part and missing is None:
            break
        if not part:
            raise http.client.IncompleteRead(b"", missing)
        parts.append(part)
        done += len(part)
        missing = None if missing is None else missing - len(part)
        if done > _MOST_BYTES:
            raise ServiceError(f"The answer is longer than {_MOST_BYTES // 2**20} MiB.", "answer too long")
    response.close()  # all of it was read: the connection can be used again
    return b"".join(parts)


def _is_readable(socket: Any) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(socket, selectors.EVENT_READ)
        return bool(selector.select(0))
