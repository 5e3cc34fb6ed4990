"""How long `say` takes from its start until its request is at the server.

    python -m benchmarks.saying [--rounds 15] [--json]

A stand-in for the server notes when each request arrives, and answers with 80 ms of silence. `say` is a process of its
own, once as it is typed (it plays, or says that it cannot) and once with `-o`, which is checked before it asks.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mlx_qwen3tts import cli

SILENCE = bytes(3840)


class StandIn(ThreadingHTTPServer):
    """A server that is healthy, and keeps when it was last asked to speak."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = 0.0


class Answer(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self._send(b'{"status": "healthy"}')

    def do_POST(self) -> None:
        self.server.asked = time.perf_counter()
        self.rfile.read(int(self.headers["content-length"]))
        self._send(SILENCE)

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass


def measure(rounds: int) -> dict[str, list[float]]:
    """{way: milliseconds of each round}."""
    found: dict[str, list[float]] = {"played": [], "written": []}
    with StandIn() as server, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = [
            sys.executable,
            "-m",
            "mlx_qwen3tts.say",
            "--server",
            f"http://127.0.0.1:{server.server_port}",
            "Hello.",
        ]
        for _ in range(rounds):
            for way, more in (("played", []), ("written", ["-o", str(Path(folder) / "said.wav")])):
                start = time.perf_counter()
                subprocess.run([*said, *more], capture_output=True, check=False)
                found[way].append(1e3 * (server.asked - start))
                if found[way][-1] < 0:
                    raise SystemExit("say did not reach the server")
        server.shutdown()
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--json", action="store_true")
    options = options.parse_args()
    found = measure(options.rounds)
    for way, times in found.items():
        print(f"{way:8} {statistics.median(times):4.0f} ms, {min(times):.0f} to {max(times):.0f}")
    if options.json:
        cli.print_json({way: statistics.median(times) for way, times in found.items()})


if __name__ == "__main__":
    main()
