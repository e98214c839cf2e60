"""A small Kubernetes API over real HTTP: lists and watches pods as the API server does, and fails when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


def pod(
    name: str, uid: str, node: str = "node-1", containers: dict[str, str] | None = None, **metadata: object
) -> Json:
    """Return a pod as the API describes it; `containers` are name -> id."""
    statuses = [
        {"name": name, "containerID": f"containerd://{identifier}" if identifier else "", "ready": True}
        for name, identifier in (containers or {}).items()
    ]
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": uid, **metadata},
        "spec": {"nodeName": node, "containers": [{"name": name} for name in containers or {}]},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }


class Api:
    """The server's state. Change it under `changing`, which wakes whoever watches."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.waited = threading.Event()  # set when nobody shall wait any more
        self.pods: dict[str, Json] = {}
        self.version = 100
        self.log: list[tuple[int, Json]] = []  # events by version
        self.oldest = 0  # versions up to this are forgotten
        self.page = 250
        self.behaves = ""  # in answers to lists: "stalls", "drips", "has no end", "is all parts", "redirects"
        self.failing: int | None = None  # answer everything with this status
        self.begun_watches = 0  # those that will notice what happens from now on
        self.ended_watches = 0  # grows: those that are open end
        self.garbage = b""  # sent into the watches that are open
        self.paths: list[str] = []
        self.token = ""  # that is wanted
        self.requests: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.stopping = False

    def put(self, described: Json) -> None:
        """Create or change a pod."""
        uid = described["metadata"]["uid"]
        with self.condition:
            kind = "MODIFIED" if uid in self.pods else "ADDED"
            self._note(kind, described)
            self.pods[uid] = described

    def delete(self, uid: str) -> None:
        """Delete a pod."""
        with self.condition:
            self._note("DELETED", self.pods.pop(uid))

    def bookmark(self) -> None:
        """Tell watchers how far they are, without a pod."""
        with self.condition:
            self._note("BOOKMARK", {"kind": "Pod", "metadata": {}})

    def send(self, raw: bytes) -> None:
        """Send these bytes into the watches that are open."""
        with self.condition:
            self.garbage = raw
            self.condition.notify_all()

    def end_watches(self, forget: bool = False) -> None:
        """End the watches that are open; with `forget`, none can go on from where it was."""
        with self.condition:
            self.ended_watches += 1
            if forget:
                self.version += 1
                self.oldest = self.version
            self.condition.notify_all()

    def fail(self, status: int | None) -> None:
        """Answer everything with this status from now on; None: work again."""
        with self.condition:
            self.failing = status
            self.ended_watches += 1
            self.condition.notify_all()

    def _note(self, kind: str, described: Json) -> None:
        self.version += 1
        described["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, {"type": kind, "object": json.loads(json.dumps(described))}))
        self.condition.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds for a request to come, after a connection
    api: Api

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        """Answer /api/v1/pods."""
        query = parse_qs(urlsplit(self.path).query)
        with self.api.condition:
            self.api.requests.append(query)
            self.api.paths.append(self.path)
            self.api.headers.append(dict(self.headers))
            failing = self.api.failing
            if self.api.token and self.headers["Authorization"] != self.api.token:
                failing = 401
        if failing is not None:
            self._answer(failing, {"kind": "Status", "status": "Failure", "code": failing, "message": "as told"})
        elif self.api.behaves and not query.get("watch"):
            self._misbehave(self.api.behaves)
        elif urlsplit(self.path).path != "/api/v1/pods":
            self._answer(404, {})
        elif query.get("watch") in (["True"], ["true"]):
            self._watch(query)
        else:
            self._list(query)

    def _misbehave(self, how: str) -> None:
        """Answer a list as no API does, until the client hangs up or the test is over."""
        self.close_connection = True
        if how == "redirects":
            self.send_response(307)
            self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        piece = {"stalls": b"{", "drips": b" ", "has no end": b" " * (1 << 20), "is all parts": b"[],"}[how]
        self.wfile.write(b'{"items":[')
        while not self.api.stopping and self.api.behaves == how:
            try:
                self.wfile.write(piece * (1 << 20) if how == "is all parts" else piece)
                self.wfile.flush()
            except OSError:
                return
            if how in ("stalls", "drips"):
                self.api.waited.wait(0.02 if how == "drips" else 60)

    def _of_node(self, query: dict[str, list[str]], described: Json) -> bool:
        (selector,) = query.get("fieldSelector", [""])
        return not selector or selector == f"spec.nodeName={described.get('spec', {}).get('nodeName')}"

    def _list(self, query: dict[str, list[str]]) -> None:
        with self.api.condition:
            pods = [one for one in self.api.pods.values() if self._of_node(query, one)]
            start = int(query.get("continue", ["0"])[0])
            end = start + min(self.api.page, int(query.get("limit", ["1000000"])[0]))
            metadata = {"resourceVersion": str(self.api.version)}
            if end < len(pods):
                metadata["continue"] = str(end)
            answer = {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods[start:end]}
        self._answer(200, answer)

    def _watch(self, query: dict[str, list[str]]) -> None:
        api = self.api
        seen = int(query["resourceVersion"][0])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        with api.condition:
            watches, garbage = api.ended_watches, api.garbage
            api.begun_watches += 1
            if seen < api.oldest:
                gone = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}
                self._chunk(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                return self._end()
        while True:
            with api.condition:
                while not (
                    api.stopping or api.ended_watches != watches or api.version > seen or api.garbage != garbage
                ):
                    api.condition.wait()
                if api.stopping or api.ended_watches != watches:
                    return self._end()
                events = [event for version, event in api.log if version > seen]
                seen = api.version
                raw = api.garbage if api.garbage != garbage else b""
                garbage = api.garbage
            for event in events:
                if event["type"] == "BOOKMARK" or self._of_node(query, event["object"]):
                    self._chunk(json.dumps(event).encode() + b"\n")
            if raw:
                self._chunk(raw)

    def _answer(self, status: int, body: Json) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        # Otherwise a thread would wait for the client's next request, also at the end of the test.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(raw)

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Be silent: clients that hang up in the middle are part of the tests."""


@contextmanager
def serving() -> Iterator[tuple[Api, str]]:
    """Serve until the block ends; gives the state and the URL."""
    api = Api()
    handler = type("Handler", (_Handler,), {"api": api})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield api, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        api.waited.set()
        with api.condition:
            api.stopping = True
            api.condition.notify_all()
        server.shutdown()
        thread.join()
        server.server_close()
