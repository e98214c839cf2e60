"""The pods of this node from the Kubernetes API: listed once, then watched, in a thread of its own.

Needs the extra `kubernetes` and the right to list and watch pods. Whatever fails is tried again, later and later up to
a minute, and told in `why`: discovery goes on with what the cgroups say.

Source: Kubernetes API concepts, "Efficient detection of changes": list, watch from its resourceVersion, list
again after 410 Gone.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from gomem.tracer.discovery.pods import Pod, Pods, parse_pod
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.report import Limit

_PAGE = 100  # pods in one answer
_MOST_PAGES = 64
MOST_BYTES = 16 << 20  # of one answer
MOST_PARTS = 500_000  # of one answer: what is parsed takes some 100 bytes each, however short it is written
MOST_LINE = 4 << 20  # of one event
_CHUNK = 1 << 16
_CONNECT, _READ = 5.0, 30.0  # seconds
_ANSWER = 120.0  # seconds for a whole list, however often a byte comes
_WATCH_SECONDS = 300  # the server ends a watch then; bookmarks come once a minute
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_MOST_LISTS = 3  # in a row that are too old to be watched from, before we wait longer and longer
_GONE = 410


class Response(Protocol):
    """What is used of urllib3's HTTPResponse."""

    def read1(self, amt: int) -> bytes:
        """Return what is there, at most `amt` bytes, none at the end."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...

    def shutdown(self) -> None:
        """Make a read in another thread return."""
        ...


class PodApi(Protocol):
    """What is used of kubernetes.client.CoreV1Api, whose answers are taken as bytes: its models cost too much."""

    def list_pod_for_all_namespaces(self, **options: object) -> Response:
        """Send the request; raises kubernetes.client.ApiException, and urllib3's and OpenSSL's errors."""
        ...


class ClusterError(Exception):
    """An answer that cannot be used. `gone`: what we know is too old, so that we have to list again."""

    def __init__(self, why: str, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


def connect() -> PodApi:
    """Return the API as a pod's service account reaches it, else as the kubeconfig says.

    Raises BackendUnavailable, which says what is missing.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise BackendUnavailable(
            "the Python package kubernetes is not installed", "pip install 'gomem[kubernetes]'"
        ) from None
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException as outside:
        try:
            config.load_kube_config(client_configuration=settings)
        except (config.ConfigException, OSError, ValueError):
            raise BackendUnavailable(
                f"no Kubernetes API is known here: {outside}",
                "run gomem in a pod with a service account, or set KUBECONFIG",
            ) from None
    settings.retries = False
    api: PodApi = client.CoreV1Api(client.ApiClient(settings))
    return api


class Cluster:
    """Keeps `pods` as the API has them. Start it; stop it."""

    def __init__(
        self,
        node: str,
        label_keys: Iterable[str] = (),
        connect: Callable[[], PodApi] = connect,
        first_wait: float = _FIRST_WAIT,
    ) -> None:
        """Prepare for the pods that run on `node`; keeps only the pod labels `label_keys`."""
        self.pods = Pods()
        self.node = node
        self.why = ""  # why it is not known what the API says; "" while all is well, and before it was asked
        self.failures = 0
        self._label_keys = tuple(label_keys)
        self._connect = connect
        self._first_wait = first_wait
        self._api: PodApi | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._response: Response | None = None
        self._thread = threading.Thread(target=self._run, name="gomem-kubernetes", daemon=True)

    def start(self) -> None:
        """Begin, in a thread; never raises. What is missing to begin with is told in `why` at once."""
        self._try_to_connect()
        self._thread.start()

    def stop(self, within: float = 5.0) -> None:
        """End; a request that does not let itself be ended is left to end by itself."""
        self._stopped.set()
        with self._lock:
            response = self._response
        if response is not None:
            _interrupt(response)
        if self._thread.is_alive():
            self._thread.join(within)

    @property
    def limit(self) -> Limit | None:
        """What cannot be shown now, if the API does not answer."""
        if not self.why:
            return None
        fix = "grant get, list and watch on pods (see docs/discovery.md)"
        return Limit("pod-names", "pod names and labels", self.why, fix)

    def _try_to_connect(self) -> PodApi | None:
        if self._api is None:
            try:
                self._api = self._connect()
            except BackendUnavailable as why:
                self._failed(f"{why.what}: {why.fix}")
            except Exception as why:  # a kubeconfig can be broken in any way
                self._failed(_short(why))
        return self._api

    def _run(self) -> None:
        wait = self._first_wait
        while not self._stopped.is_set():
            began = time.monotonic()
            api = self._try_to_connect()
            if api is not None:
                try:
                    self._follow(api)
                except Exception as why:  # the client raises what its HTTP and TLS libraries do, too
                    self._failed(_short(why))
                    self._api = None  # token, certificates and address may be others by now
            # A server that answered for a while and fails then has earned a fresh start.
            wait = self._first_wait if time.monotonic() - began > _LONGEST_WAIT else wait
            self._stopped.wait(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def _failed(self, why: str) -> None:
        if not self._stopped.is_set():
            self.failures += 1
            self.why = why

    def _follow(self, api: PodApi) -> None:
        """List, then watch until something fails; raises what failed."""
        version = self._list(api)
        listed = 1  # times in a row, without a watch that told something
        while not self._stopped.is_set():
            try:
                seen, version = version, self._watch(api, version)
                listed = 0 if version != seen else listed
            except ClusterError as why:
                if not why.gone or listed > _MOST_LISTS:
                    raise
                self._stopped.wait(self._first_wait)
                version, listed = self._list(api), listed + 1
            # A server that ends each watch at once must not keep us, or itself, busy.
            self._stopped.wait(self._first_wait)

    def _list(self, api: PodApi) -> str:
        pods: list[Pod] = []
        token, version = "", ""
        for _ in range(_MOST_PAGES):
            options: dict[str, object] = {"limit": _PAGE}
            if token:
                options["_continue"] = token
            with self._asked(api, _READ, options) as response:
                answer = _parsed(_whole(response, self._stopped))
            items = answer.get("items")
            for item in items if isinstance(items, list) else []:
                pod = parse_pod(item, self._label_keys)
                if pod is not None:
                    pods.append(pod)
            metadata = answer.get("metadata")
            metadata = metadata if isinstance(metadata, dict) else {}
            version, token = str(metadata.get("resourceVersion") or ""), str(metadata.get("continue") or "")
            if not token:
                break
        if not version:
            raise ClusterError("the Kubernetes API sent a list without a resourceVersion")
        self.pods.replace(pods)
        self.why = ""
        return version

    def _watch(self, api: PodApi, version: str) -> str:
        """Take events until the server ends the watch; return the version to go on from."""
        options: dict[str, object] = {
            "watch": True,
            "resource_version": version,
            "allow_watch_bookmarks": True,
            "timeout_seconds": _WATCH_SECONDS,
        }
        with self._asked(api, _WATCH_SECONDS + _READ, options) as response:
            for line in _lines(response):
                version = self._take(_parsed(line)) or version
                self.why = ""
                if self._stopped.is_set():
                    break
        return version

    def _take(self, event: dict[str, object]) -> str | None:
        """Apply one event; return its object's version."""
        described = event.get("object")
        described = described if isinstance(described, dict) else {}
        if event.get("type") == "ERROR":
            code = described.get("code")
            raise ClusterError(f"the Kubernetes API ended the watch: {_short(described.get('message'))}", code == _GONE)
        metadata = described.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        pod = parse_pod(described, self._label_keys)
        if pod is not None:
            if event.get("type") == "DELETED":
                self.pods.drop(pod.uid)
            elif event.get("type") in ("ADDED", "MODIFIED"):
                self.pods.put(pod)
        return version if isinstance(version, str) else None

    @contextlib.contextmanager
    def _asked(self, api: PodApi, seconds: float, options: dict[str, object]) -> Iterator[Response]:
        try:
            response = api.list_pod_for_all_namespaces(
                field_selector=f"spec.nodeName={self.node}",
                _preload_content=False,
                _request_timeout=(_CONNECT, seconds),
                **options,
            )
        except Exception as why:
            if getattr(why, "status", None) == _GONE:
                raise ClusterError("what was known is too old", gone=True) from None
            raise
        with self._lock:
            self._response = response
        try:
            if self._stopped.is_set():
                raise ClusterError("stopped")
            yield response
        finally:
            with self._lock:
                self._response = None
            response.close()


def _interrupt(response: Response) -> None:
    """Make whoever reads from it go on; what it then raises is not of interest."""
    with contextlib.suppress(Exception):
        response.shutdown()


def _whole(response: Response, stopped: threading.Event) -> bytes:
    parts, size, deadline = [], 0, time.monotonic() + _ANSWER
    while part := response.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise ClusterError(f"the Kubernetes API sent more than {MOST_BYTES} bytes in one answer")
        if time.monotonic() > deadline or stopped.is_set():
            raise ClusterError(f"the Kubernetes API took more than {_ANSWER:g} s for one answer")
    return b"".join(parts)


def _lines(response: Response) -> Iterator[bytes]:
    """Yield the lines as they come."""
    rest = bytearray()
    while part := response.read1(_CHUNK):
        rest += part
        if b"\n" not in part:
            if len(rest) > MOST_LINE:
                raise ClusterError(f"the Kubernetes API sent an event of more than {MOST_LINE} bytes")
            continue
        *lines, last = rest.split(b"\n")
        rest = bytearray(last)
        yield from (bytes(line) for line in lines if line.strip())


def _parsed(raw: bytes) -> dict[str, object]:
    if sum(map(raw.count, (b",", b"[", b"{"))) > MOST_PARTS:
        raise ClusterError(f"the Kubernetes API sent an answer of more than {MOST_PARTS} parts")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as why:
        raise ClusterError(f"the Kubernetes API sent no JSON: {_short(why)}") from None
    if not isinstance(value, dict):
        raise ClusterError("the Kubernetes API sent no JSON object")
    return value


def _short(why: object) -> str:
    """Return a reason on one line, cut where it would fill a page."""
    status, reason = getattr(why, "status", None), getattr(why, "reason", None)
    text = f"the Kubernetes API answered {status} {reason}" if status else str(why)
    return " ".join(text.split())[:300] or type(why).__name__
