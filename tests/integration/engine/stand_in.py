"""A stand-in for mistudio-server that starts in 30 ms: the same verbs, no database. Run as a script.

STANDIN_BROKEN names a unit that ends at once; STANDIN_MIGRATE=fail makes the migration fail, =locked finds the database
locked; STANDIN_HEAD is the newest revision (the database is at 0001), STANDIN_MIGRATED a file that tells of migrations;
STANDIN_SLOW_STOP is the seconds that a worker takes to end.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers everything with who it is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {
                "status": "healthy", "instance": os.environ["MISTUDIO_INSTANCE"], "path": self.path,
                "release": os.environ["MISTUDIO_RELEASE"], "checks": {}, "headers": dict(self.headers),
                "level": os.environ.get("LOG_LEVEL"), "uid": os.getuid(),
            }
        ).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


def main(verb: str) -> None:
    name = os.environ.get("MISTUDIO_INSTANCE", "")
    if verb == "migrate":
        head = os.environ.get("STANDIN_HEAD", "0001")
        if "--check" in sys.argv:
            print(json.dumps({"current": "0001", "head": head, "at_head": head == "0001"}))
            sys.exit(head != "0001")
        if os.environ.get("STANDIN_MIGRATE") == "locked":
            print("mistudio-server: waiting for the archiver", file=sys.stderr, flush=True)
            print("mistudio-server: the archiver holds the lock.", file=sys.stderr)
            sys.exit(11)
        if os.environ.get("STANDIN_MIGRATED"):
            with open(os.environ["STANDIN_MIGRATED"], "a") as file:  # noqa: PTH123 - it starts in 30 ms
                file.write(" ".join(sys.argv[2:]) + "\n")
        if os.environ.get("STANDIN_MIGRATE") == "fail":
            sys.exit("column mystery does not exist")
        time.sleep(float(os.environ.get("STANDIN_MIGRATE_SECONDS", "0")))
        print(json.dumps({"current": head, "head": head, "at_head": True}))
        return
    if verb == "check":
        print(json.dumps({"ok": True, "checks": []}))
        return
    print(f"{name} begins", flush=True)
    if os.environ.get("STANDIN_BROKEN") == name:
        sys.exit("RuntimeError: the stand-in is broken on purpose")
    if verb == "run":
        ThreadingHTTPServer.allow_reuse_address = True
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(0.05)
        return
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    time.sleep(float(os.environ.get("STANDIN_SLOW_STOP", "0")))


main(sys.argv[1])
