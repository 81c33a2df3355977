"""Asks the edge for a page, steadily, and says every ten seconds how it went."""

import os
import time
import urllib.error
import urllib.request

TARGET = os.environ["TARGET"]
PAUSE = 1 / float(os.environ.get("PER_SECOND", "10"))

asked = failed = 0
reported = time.monotonic()
while True:
    asked += 1
    try:
        method, path = ("POST", "cart") if asked % 10 == 0 else ("GET", "")
        data = b"tea" if method == "POST" else None
        request = urllib.request.Request(TARGET + path, data=data, method=method)
        urllib.request.urlopen(request, timeout=5).read()
    except (OSError, urllib.error.URLError):
        failed += 1
    if time.monotonic() - reported > 10:
        print(f"{asked} requests, {failed} failed", flush=True)
        asked = failed = 0
        reported = time.monotonic()
    time.sleep(PAUSE)
