"""What stands before the routes: TLS, passwords, rates, and hosts that are not ours; reread when its files change."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gomem.exporters.http.passwords import Judgement, Passwords
from gomem.exporters.http.places import Client
from gomem.exporters.http.rates import TokenBucket
from gomem.exporters.http.request import Request
from gomem.exporters.http.response import Response, plain
from gomem.exporters.http.routes import Routes, path_class
from gomem.exporters.http.statistics import Statistics
from gomem.exporters.http.tls import has_allowed_name, server_context
from gomem.exporters.http.webconfig import RateLimit, WebConfig, load_web_config
from gomem.exporters.http.yaml_sections import WebConfigError
from gomem.tracer.errors import GomemError

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_COMPLAINTS = 60.0
_MOST_COMPLAINTS = 100

Fingerprint = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A configuration in force."""

    config: WebConfig
    context: ssl.SSLContext | None


class Admission:
    """Lets requests through to the routes, or answers in their place. Safe from several threads."""

    def __init__(
        self, config: WebConfig | None, routes: Routes, statistics: Statistics, log: Callable[[str], None]
    ) -> None:
        self._routes = routes
        self._statistics = statistics
        self._log = log
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._config = config
        # Nothing was seen yet: the first look rereads, and so tells early if privileges were given up that it takes.
        self._seen: Fingerprint = ()
        self._looked_at = time.monotonic()
        self._passwords = Passwords()
        self._rate = _bucket(config.rate_limit) if config is not None else None
        self._complained: dict[str, float] = {}
        self._own_names = _own_names()

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken; fixed when the server starts."""
        return self._config is not None and self._config.encrypted

    @property
    def authenticates(self) -> bool:
        """Whether clients could prove who they are when the server started."""
        return self._config is not None and self._config.authenticated

    def check(self) -> None:
        """Make the TLS context. Raises WebConfigError."""
        if self._config is not None:
            tls = self._config.tls
            self._loaded = _Loaded(self._config, server_context(tls) if tls is not None else None)

    def _now(self) -> _Loaded | None:
        """Return the configuration in force, after a look at its files if the last one is a while ago."""
        with self._lock:
            if self._loaded is None:
                return None
            if time.monotonic() - self._looked_at >= _SECONDS_BETWEEN_LOOKS:
                self._look()
                self._looked_at = time.monotonic()
            return self._loaded

    def _look(self) -> None:
        assert self._loaded is not None
        found = _fingerprint(self._loaded.config.files())
        if found == self._seen:
            return
        self._seen = found
        try:
            config = load_web_config(self._loaded.config.path)
            if config.encrypted is not self.encrypted:
                raise WebConfigError(f"web configuration {config.path}: TLS cannot be turned on or off while running")
            context = server_context(config.tls) if config.tls is not None else None
        except GomemError as error:
            # Certificate and key may be half exchanged: what worked until now works on until both are there.
            self._statistics.reload_failed()
            self._complain(f"{error.what}; the configuration before it stays in force")
            return
        if config.rate_limit != self._loaded.config.rate_limit:
            self._rate = _bucket(config.rate_limit)
        if config.files() != self._loaded.config.files():
            self._seen = ()  # of other files: the next look takes their marks
        self._loaded = _Loaded(config, context)

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the context for the next handshake; None: TLS is not spoken."""
        loaded = self._now()
        return loaded.context if loaded is not None else None

    def admits(self, certificate: Mapping[str, object] | None) -> bool:
        """Whether the names in a client's certificate are among those let in."""
        loaded = self._now()
        tls = loaded.config.tls if loaded is not None else None
        allowed = tls.client_allowed_sans if tls is not None else ()
        return not allowed or has_allowed_name(certificate, allowed)

    def headers(self) -> Mapping[str, str]:
        """Return the configured headers of every response."""
        return self._loaded.config.headers if self._loaded is not None else {}

    def quick_answer(self, request: Request) -> Response | None:
        """Answer probes of health, which need no password (kubelets have none) and no worker; else return None."""
        if request.method not in ("GET", "HEAD"):
            return None
        if request.path == "/healthz":
            return self._routes.healthz()
        if request.path == "/readyz":
            return self._routes.readyz()
        return None

    def answer(self, request: Request, client: Client) -> Response:
        """Return the response to a request; note in `client` that it knew a password. Never raises."""
        kind = path_class(request.path)
        try:
            loaded = self._now()
            refusal = self._refusal(request, client, loaded.config if loaded is not None else None, kind)
            return refusal or self._routes.answer(request)
        except Exception as error:  # one broken page must not end the server; the client gets no detail
            self._complain(f"a request of {kind} failed: {type(error).__name__}: {error}")
            return plain(500, "this went wrong on our side", kind)

    def _refusal(self, request: Request, client: Client, config: WebConfig | None, kind: str) -> Response | None:
        if client.local and _of_browser(request) and not self._is_ours(request.header("host")):
            self._statistics.refuse("host")
            return plain(421, "this host name is not ours; use localhost or the address", kind)
        if config is None:
            return None
        with self._lock:
            limited = self._rate is not None and not self._rate.take()
        if limited:
            self._statistics.refuse("rate")
            return plain(429, "too many requests", kind, Retry_After="1")
        if not config.users:
            return None
        judgement = self._passwords.judge(request.header("authorization"), config.users, client.peer)
        if judgement is Judgement.RIGHT:
            client.authenticated = True
            return None
        self._statistics.refuse("password" if judgement is Judgement.WRONG else "password_rate")
        if judgement is Judgement.LATER:
            return plain(429, "too many passwords are being tried", kind, Retry_After="2")
        return plain(401, "a user name and a password are needed", kind, WWW_Authenticate='Basic realm="gomem"')

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine by itself. A name that somebody's DNS leads here does not."""
        name = _without_port(host).lower().rstrip(".")
        if name in self._own_names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _complain(self, message: str) -> None:
        """Log, but the same thing not more than once a minute."""
        now = time.monotonic()
        if now - self._complained.get(message, -_SECONDS_BETWEEN_COMPLAINTS) < _SECONDS_BETWEEN_COMPLAINTS:
            return
        if len(self._complained) >= _MOST_COMPLAINTS:
            self._complained.clear()
        self._complained[message] = now
        self._log(message)


def _of_browser(request: Request) -> bool:
    """Whether a browser sent this: only browsers can be led here by another site's DNS (rebinding)."""
    return "sec-fetch-site" in request.headers or request.header("user-agent").startswith("Mozilla/")


def _own_names() -> frozenset[str]:
    try:
        return frozenset({socket.gethostname().lower()})
    except OSError:
        return frozenset()


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _bucket(limit: RateLimit | None) -> TokenBucket | None:
    return TokenBucket(limit.burst, 1 / limit.interval) if limit is not None else None


def _fingerprint(files: tuple[Path, ...]) -> Fingerprint:
    """Return what changes when a file is written or another one is put in its place."""
    marks: list[tuple[int, int, int, int] | None] = []
    for path in files:
        try:
            status = os.stat(path)
            marks.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            marks.append(None)
    return tuple(marks)
