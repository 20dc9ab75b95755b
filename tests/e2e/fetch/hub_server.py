"""A hub of our own for tests: speaks what `tptrain fetch` (and huggingface_hub, see peer.py) asks of huggingface.co, from two ports, the
hub and the store that it leads to, and breaks what it serves as it is told."""
import hashlib
import http.server
import json
import random
import socket
import struct
import threading
import time
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Where the bytes that came may stay: the next attempt goes on with them.
BREAKS = ("close", "reset", "stall", "slow", "no_answer", "500", "503", "429", "403", "no_chunk_end")
# What came is of no use.
LIES = ("wrong_bytes", "ignores_range", "other_range", "more", "page", "shorter_file")
API_FAULTS = ("reset", "no_answer", "500", "503", "429", "page")


def git_name(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repository:
    def __init__(self, files, large=(), gated=False, private=False, kind="models", listing=None):
        self.files, self.large, self.gated, self.private, self.kind = files, set(large), gated, private, kind
        self.listing = listing  # in place of the true one

    def entries(self):
        if self.listing is not None:
            return self.listing
        folders = sorted({path.rsplit("/", 1)[0] for path in self.files if "/" in path})
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders]
        for path, data in sorted(self.files.items()):
            entry = {"type": "file", "oid": git_name(data), "size": len(data), "path": path}
            if path in self.large:
                pointer = b"version https://git-lfs.github.com/spec/v1\n"
                entry |= {"oid": git_name(pointer), "xetHash": "f" * 64,
                          "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": len(pointer)}}
            entries.append(entry)
        return entries


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a program fetches several files at once, and this machine may be busy

    def handle_error(self, *_):
        pass  # the other side went away: it does so on purpose


class HubServer:
    """With `fault_share` of its answers broken, at random by `seed`; `plan` names faults of the next answers with a body instead."""

    def __init__(self, repositories, token="hf_right", page_size=3, fault_share=0.0, seed=0, faults=BREAKS + LIES, api_faults=API_FAULTS, plan=(), stall_s=1.5):
        self.repositories, self.token, self.page_size = repositories, token, page_size
        self.fault_share, self.faults, self.api_faults, self.plan, self.stall_s = fault_share, faults, api_faults, list(plan), stall_s
        self.draw, self.lock = random.Random(seed), threading.Lock()
        self.answering, self.slowness_s = 0, 0.02
        self.release = threading.Event()  # what a held answer waits for, in its middle
        self.log = []  # [path, first byte asked for, bytes sent, fault] of each answer with a file, as they began
        self.complaints = []
        self.faulted = 0
        hub, store = (self._serve(handler) for handler in (Hub, Store))
        self.endpoint, self.store = hub, store

    def _serve(self, handler):
        server = Server(("127.0.0.1", 0), type("Handler", (handler,), {"hub": self}))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.servers = getattr(self, "servers", []) + [server]
        return f"http://127.0.0.1:{server.server_port}"

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def fault(self, kinds):
        """What goes wrong with this answer, or None."""
        with self.lock:
            if not kinds or self.draw.random() >= self.fault_share:
                return None
            self.faulted += 1
            return self.draw.choice(kinds)

    def planned(self):
        with self.lock:
            return self.plan.pop(0) if self.plan else None

    def ended(self):
        """The log, when no answer is under way any more: the bytes sent are known then."""
        while self.answering:
            time.sleep(0.01)
        return self.log

    def at(self, share):
        with self.lock:
            return self.draw.random() * share


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message):
        body = json.dumps({"error": message}).encode()
        self.answer(status, body, [("X-Error-Code", code), ("X-Error-Message", message), ("Content-Type", "application/json")])

    def reset(self):
        """As a cable that is pulled: what is under way is lost."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()

    def end(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR) if self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER) == 0 else None
        except OSError:
            pass
        self.connection.close()

    def plain_fault(self, fault):
        """Faults that need nothing of the body; whether this was one."""
        if fault in ("500", "503"):
            self.answer(int(fault), b"<html>try again</html>")
        elif fault == "429":
            self.answer(429, b'{"error": "rate limited"}', [("Retry-After", "0")])
        elif fault == "page":
            self.answer(200, b"<!doctype html><html>Log in to the network of this hotel</html>", [("Content-Type", "text/html")])
        elif fault == "no_answer":
            self.end()
        else:
            return False
        return True

    def file(self, path, data):
        with self.hub.lock:
            self.hub.answering += 1
        fault = self.hub.planned() or self.hub.fault(self.hub.faults)
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        sent = 0
        # At its beginning: one that stalls ends behind the next.
        entry = [path, first, 0, fault]
        with self.hub.lock:
            self.hub.log.append(entry)
        try:
            sent = self.send_file(data, asked, first, fault) or 0
        except OSError:
            pass
        with self.hub.lock:
            entry[2] = sent
            self.hub.answering -= 1

    def send_file(self, data, asked, first, fault):
        if self.plain_fault(fault):
            return 0
        if fault == "403":  # of the store: the address has run out
            return self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if asked and first >= len(data):
            return self.answer(416, b"", [("Content-Range", f"bytes */{len(data)}")])
        body = data[first:]
        size = len(data)
        if fault == "ignores_range":
            asked, body = None, data
        if fault == "other_range" and asked:
            first = first // 2
            body = data[first:]
        if fault == "more":
            body += b"and more"
        if fault == "shorter_file":
            body = body[: len(body) // 2]
            size = first + len(body)
        if fault == "wrong_bytes" and body:
            at = int(self.hub.at(len(body)))
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        chunked = fault == "no_chunk_end"
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))))
        self.end_headers()
        if self.command == "HEAD":
            return 0
        part = body[: int(self.hub.at(len(body)))] if fault in ("close", "reset", "stall", "no_chunk_end") else body
        if chunked:
            self.wfile.write(b"%x\r\n" % (len(body) + 1) + part)
        elif fault == "held":
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.hub.release.wait(600)
            self.wfile.write(part[len(part) // 2 :])
        elif fault == "slow":
            for at in range(0, len(part), max(1, len(part) // 10)):
                self.wfile.write(part[at : at + max(1, len(part) // 10)])
                self.wfile.flush()
                time.sleep(self.hub.slowness_s)
        else:
            self.wfile.write(part)
        self.wfile.flush()
        if fault == "stall":
            time.sleep(self.hub.stall_s)
        if fault == "reset":
            self.reset()
        elif len(part) < len(body) or chunked:
            self.end()
        return len(part)


class Hub(Answers):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        try:
            self.get(urllib.parse.urlsplit(self.path))
        except OSError:
            pass

    def get(self, url):
        path = urllib.parse.unquote(url.path).strip("/")
        api = path.startswith("api/")
        kind = "datasets" if path.removeprefix("api/").startswith("datasets/") else "models"
        rest = path.removeprefix("api/").removeprefix("datasets/").removeprefix("models/")
        for name, repository in self.hub.repositories.items():
            if repository.kind == kind and rest.startswith(name + "/"):
                return self.of_repository(repository, name, rest[len(name) + 1 :], api, urllib.parse.parse_qs(url.query))
        self.refuse(401 if not self.token() else 404, "RepoNotFound", "Repository not found")

    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def of_repository(self, repository, name, rest, api, query):
        if repository.private and self.token() != self.hub.token:
            return self.refuse(401 if not self.token() else 404, "RepoNotFound", "Repository not found")
        what, _, rest = rest.partition("/")
        if what == "revision" and api:
            if rest not in ("main", COMMIT, "refs/pr/1"):
                return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest}")
            files = [{"rfilename": path} for path in repository.files]
            return self.api({"id": name, "sha": COMMIT, "private": repository.private, "gated": repository.gated, "siblings": files,
                             "tags": [], "downloads": 0, "likes": 0})
        if repository.gated and self.token() != self.hub.token and what == "resolve":
            return self.refuse(403 if self.token() else 401, "GatedRepo",
                               f"Access to model {name} is restricted. You must have access to it and be authenticated to access it.")
        if what == "tree" and api:
            return self.tree(repository, name, query)
        if what == "resolve":
            return self.resolve(repository, name, rest.partition("/")[2])
        self.refuse(404, "EntryNotFound", "Entry not found")

    def api(self, value, headers=()):
        fault = self.hub.fault(self.hub.api_faults)
        if self.plain_fault(fault):
            return
        if fault == "reset":
            return self.reset()
        self.answer(200, json.dumps(value).encode(), [("Content-Type", "application/json"), *headers])

    def tree(self, repository, name, query):
        first = int(query.get("cursor", ["0"])[0])
        entries = repository.entries()
        headers = []
        if first + self.hub.page_size < len(entries):
            kind = repository.kind
            next_page = f"{self.hub.endpoint}/api/{kind}/{name}/tree/{COMMIT}?recursive=true&expand=false&cursor={first + self.hub.page_size}"
            headers = [("Link", f'<{next_page}>; rel="next"')]
        self.api(entries[first : first + self.hub.page_size], headers)

    def resolve(self, repository, name, path):
        if path not in repository.files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        data = repository.files[path]
        facts = [("X-Repo-Commit", COMMIT), ("Accept-Ranges", "bytes")]
        if path in repository.large:
            sha = hashlib.sha256(data).hexdigest()
            place = f"{self.hub.store}/blobs/{repository.kind}/{urllib.parse.quote(name, safe='')}/{urllib.parse.quote(path)}?sig=1"
            return self.answer(302, b"Found", [*facts, ("Location", place), ("X-Linked-Etag", f'"{sha}"'), ("X-Linked-Size", str(len(data)))])
        if self.command == "HEAD":
            return self.answer(200, b"", [*facts, ("ETag", f'"{git_name(data)}"')], length=len(data))
        self.file(path, data)


class Store(Answers):
    """Where large files lie: another server, which must not see the hub's token."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.headers.get("Authorization"):
            self.hub.complaints.append("the store was sent the token of the hub")
        parts = urllib.parse.urlsplit(self.path).path.split("/", 4)
        name, path = (urllib.parse.unquote(part) for part in parts[3:5])
        try:
            self.file(path, self.hub.repositories[name].files[path])
        except OSError:
            pass
