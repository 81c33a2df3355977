"""The shop's API: counts visits and keeps carts in Redis, spoken to in its own protocol."""

import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STORE_HOST, STORE_PORT = os.environ["STORE"].split(":")
connections = threading.local()


def ask(*words):
    """Sends one command to Redis and returns its answer."""
    stream = getattr(connections, "stream", None)
    if stream is None:
        link = socket.create_connection((STORE_HOST, int(STORE_PORT)), timeout=5)
        stream = connections.stream = link.makefile("rwb")
    try:
        stream.write(b"*%d\r\n" % len(words))
        for word in words:
            data = str(word).encode()
            stream.write(b"$%d\r\n%s\r\n" % (len(data), data))
        stream.flush()
        return answer(stream)
    except (OSError, EOFError):
        connections.stream = None
        raise


def answer(stream):
    line = stream.readline()
    if not line:
        raise EOFError("the store closed the connection")
    kind, text = line[:1], line[1:].strip()
    if kind == b"+":
        return text.decode()
    if kind == b":":
        return int(text)
    if kind == b"$":
        size = int(text)
        return None if size < 0 else stream.read(size + 2)[:-2].decode()
    if kind == b"*":
        return [answer(stream) for _ in range(int(text))]
    raise OSError(text.decode())


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            return self.reply(200, {"ok": ask("PING") == "PONG"})
        if self.path == "/cart":
            return self.reply(200, {"cart": ask("LRANGE", "cart", 0, -1)})
        if self.path == "/":
            visits = ask("INCR", "visits")
            return self.reply(200, {"visits": visits, "served_by": socket.gethostname()})
        return self.reply(404, {"error": "no such page"})

    def do_POST(self):
        if self.path != "/cart":
            return self.reply(404, {"error": "no such page"})
        size = min(int(self.headers.get("Content-Length", 0)), 4096)
        item = self.rfile.read(size).decode(errors="replace")
        return self.reply(201, {"items": ask("RPUSH", "cart", item)})

    def reply(self, status, body):
        data = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, form, *values):
        print(self.command, self.path, form % values, file=sys.stdout)


ThreadingHTTPServer(("0.0.0.0", 8000), Shop).serve_forever()
