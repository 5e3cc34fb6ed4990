"""A server under load: first byte and real-time factor by the number of clients, what the server itself adds, a soak.

    python -m benchmarks.serve [--size narrow] [--clients 1 2 4 8 16] [--frames 25] [--rounds 3] [--dtype float32]
                               [--mlx-audio-python PYTHON] [--soak SECONDS] [--json]

Random weights that never end by themselves, so every speech has as many frames as asked. The server runs as a process
of its own on this machine; the clients are threads here, each with a connection that it keeps, and read PCM as it
comes. A round of N clients is N speeches at once; "one after the other" is the same speeches by one client. Rounds of
different N take turns, so that what disturbs the machine disturbs all alike. Ratios are by the medians.

--mlx-audio-python: also mlx-audio's own server on the same weights, in turn.
--soak: instead of measuring, clients for so long that speak, leave, stall and send rubbish; prints the server's memory
over time, and fails where a request is lost, a row stays taken or memory grows by more than 5 % after the first sixth.
"""

import argparse
import collections
import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import mlx.core as mx
import numpy as np

from benchmarks.shared import processor
from convert.random_checkpoint import SIZES, write_checkpoint

TEXT = "The weather is fine today, and we will walk to the harbour."
FRAME_BYTES = 1920 * 2
STARTS = 300  # seconds a server may take to be ready


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(command, port, ready, log):
    """A server as a process, from when it answers `ready` to the end of the block. Yields its process id."""
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        end = time.monotonic() + STARTS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                pass
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield server.pid
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def ours(folder, library, port, dtype, batch):
    more = ["--library", str(library), "--max-batch", str(batch), "--max-queue", "64"]
    if dtype:
        more += ["--dtype", dtype]
    return [sys.executable, "-m", "mlx_qwen3tts.serve", "--model", str(folder), "--port", str(port), *more]


def in_dtype(folder, target, dtype):
    """A copy of a checkpoint whose weights have a dtype: mlx-audio computes in that of the weights."""
    if not dtype:
        return folder
    shutil.copytree(folder, target)
    weights = target / "model.safetensors"
    tensors = {name: tensor.astype(getattr(mx, dtype)) for name, tensor in mx.load(str(weights)).items()}
    weights.unlink()
    mx.save_safetensors(str(weights), tensors, metadata={"format": "pt"})
    return target


class Client:
    """One connection that speaks again and again."""

    def __init__(self, port, body):
        self.port, self.body, self.connection = port, body, None

    def speak(self, told=None, **more):
        """(seconds to the first byte of sound, seconds in all, bytes); told: called with the first byte."""
        body = json.dumps({**self.body, **more})
        start = time.perf_counter()
        for again in (True, False):
            try:
                self.connection = self.connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
                self.connection.request("POST", "/v1/audio/speech", body, {"content-type": "application/json"})
                answer = self.connection.getresponse()
                break
            except (http.client.RemoteDisconnected, ConnectionError):  # kept too long
                self.connection = None
                if not again:
                    raise
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read()[:300]!r}")
        data = answer.read1(65536)
        first = time.perf_counter() - start
        if told:
            told()
        size = len(data) + len(answer.read())
        return first, time.perf_counter() - start, size


def together(clients, count):
    """(seconds in all, [(first byte, seconds, bytes)]) of `count` clients at once."""
    results, barrier = [None] * count, threading.Barrier(count + 1)

    def one(number):
        barrier.wait()
        results[number] = clients[number].speak(seed=number)

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if None in results:
        raise SystemExit("a speech was lost")
    return time.perf_counter() - start, results


def in_process(folder, voice, frames, rounds, dtype):
    """(seconds to the first chunk, seconds in all) of the same speech without a server, medians."""
    from mlx_qwen3tts import Qwen3TTS

    tts = Qwen3TTS.from_pretrained(folder, dtype=dtype)
    vector = mx.array(np.load(voice))
    runs = []
    for seed in range(rounds + 1):
        start, first = time.perf_counter(), None
        for chunk in tts.stream(TEXT, vector, seed=seed, max_tokens=frames + 1):
            np.array(chunk.audio)
            first = first or time.perf_counter() - start
        runs.append((first, time.perf_counter() - start))
    return [statistics.median(values) for values in zip(*runs[1:], strict=True)]


def measure(servers, counts, frames, rounds):
    """{name: {clients: row}} of servers by name, each (port, body)."""
    most, found = max(counts), collections.defaultdict(lambda: collections.defaultdict(list))
    clients = {name: [Client(port, body) for _ in range(most)] for name, (port, body) in servers.items()}
    for name, own in clients.items():  # warm
        print(f"{name}: warm-up", file=sys.stderr)
        own[0].speak()
    for number in range(rounds):
        for count in counts:
            for name, own in clients.items():
                print(f"round {number + 1} of {rounds}: {name}, {count} clients", file=sys.stderr)
                found[name][count].append(together(own, count))
    return {
        name: {count: row(runs, count, frames) for count, runs in by_count.items()} for name, by_count in found.items()
    }


def row(runs, count, frames):
    firsts = [first for _, results in runs for first, _, _ in results]
    sizes = {size for _, results in runs for _, _, size in results}
    elapsed = statistics.median(seconds for seconds, _ in runs)
    made = statistics.median(sum(size for _, _, size in results) / FRAME_BYTES for _, results in runs)
    slowest = statistics.median(max(seconds for _, seconds, _ in results) for _, results in runs)
    return {
        "clients": count,
        "first_byte": statistics.median(firsts),
        "first_byte_last": statistics.median(max(first for first, _, _ in results) for _, results in runs),
        "elapsed": elapsed,
        "frames": made,
        "frames_per_second": made / elapsed,
        "rtf": slowest / (made / count * 0.08),
        "bytes": sorted(sizes),
    }


def table(name, rows):
    alone = rows[min(rows)]["frames_per_second"]
    print(
        f"\n{name}: clients | first byte, median and last | RTF of the slowest | frames/s | against one after the other"
    )
    for count, one in sorted(rows.items()):
        print(
            f"{count:4d} | {one['first_byte'] * 1e3:6.0f} ms {one['first_byte_last'] * 1e3:6.0f} ms | "
            f"{one['rtf']:6.2f} | {one['frames_per_second']:7.1f} | {one['frames_per_second'] / alone:5.2f}"
        )


def resident(pid):
    """Resident bytes of a process, or None where Linux does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


class Soak:
    """Clients of every kind against one server, until the time is over."""

    def __init__(self, port, seconds, frames):
        self.port, self.end, self.frames = port, time.monotonic() + seconds, frames
        self.counts, self.faults = collections.Counter(), []

    def run(self, threads=12):
        workers = [threading.Thread(target=self._client, args=[seed]) for seed in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _client(self, seed):
        chance = random.Random(seed)
        while time.monotonic() < self.end and len(self.faults) < 20:
            kind = chance.choice(["speak"] * 6 + ["leave", "leave", "stall", "rubbish", "silent"])
            try:
                getattr(self, f"_{kind}")(chance)
            except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
                self.faults.append(f"{kind}: {error!r}")
            self.counts[kind] += 1

    def _post(self, body, path="/v1/audio/speech"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("POST", path, body, {"content-type": "application/json"})
        return connection, connection.getresponse()

    def _body(self, chance, **more):
        frames = chance.randrange(2, self.frames)
        kind = chance.choice(["pcm", "wav", "mp3", "flac", "opus"])
        flow = chance.choice([{}, {"stream_format": "audio"}, {"stream_format": "sse"}])
        values = {"input": TEXT, "voice": "anna", "response_format": kind, "max_new_tokens": frames + 1, **flow, **more}
        return json.dumps(values), frames, kind, flow

    def _speak(self, chance):
        body, frames, kind, flow = self._body(chance)
        connection, answer = self._post(body)
        with contextlib.closing(connection):
            data = answer.read()
            if answer.status == 429:
                self.counts["busy"] += 1
                time.sleep(0.2)
                return
            assert answer.status == 200, data[:200]
            if kind == "pcm" and flow.get("stream_format") != "sse":
                assert len(data) == frames * FRAME_BYTES, f"{len(data)} bytes of {frames} frames"
            assert flow.get("stream_format") != "sse" or b"speech.audio.done" in data
        self.counts["spoken"] += 1

    def _leave(self, chance):
        body, *_ = self._body(chance, stream_format="audio", response_format="pcm")
        connection, answer = self._post(body)
        if chance.random() < 0.7 and answer.status == 200:
            answer.read(1000)
        connection.sock and connection.sock.close()
        connection.close()

    def _stall(self, chance):
        body, *_ = self._body(chance, stream_format="audio")
        connection, answer = self._post(body)
        with contextlib.closing(connection):
            if answer.status == 200:
                answer.read(100)
                time.sleep(chance.random())
                answer.read()

    def _rubbish(self, chance):
        junk = [
            b"{",
            b"[]",
            b'{"input": 5}',
            b"\xff" * 100,
            json.dumps({"input": "x", "voice": "../../etc/passwd"}).encode(),
        ]
        connection, answer = self._post(chance.choice(junk))
        with contextlib.closing(connection):
            assert answer.status in (400, 429), answer.status
            json.loads(answer.read())

    def _silent(self, chance):
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.port), 10)) as raw:
            raw.sendall(chance.choice([b"", b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\n", b"\x00" * 20]))
            time.sleep(chance.random() / 2)


def soak(port, pid, seconds, frames):
    """Run a Soak and print memory over time. Returns what was wrong."""
    storm = Soak(port, seconds, frames)
    runner = threading.Thread(target=storm.run)
    start, samples = time.monotonic(), []
    runner.start()
    while runner.is_alive():
        samples.append((time.monotonic() - start, resident(pid)))
        runner.join(max(1.0, seconds / 60))
    faults = list(storm.faults)
    for _ in range(100):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            state = json.load(answer)
        if not state["queue"] and not state["running"]:
            break
        time.sleep(0.1)
    else:
        faults.append(f"rows are still taken: {state}")
    print(f"requests: {dict(storm.counts)}")
    known = [(at, size) for at, size in samples if size]
    if known:
        shown = known[:: max(1, len(known) // 10)]
        print("memory, MB: " + ", ".join(f"{size / 1e6:.0f} at {at:.0f} s" for at, size in shown))
        settled = max(size for at, size in known if at <= max(seconds / 6, 5))
        growth = max(size for _, size in known) / settled - 1
        print(f"growth after the first sixth: {growth:+.1%}")
        if growth > 0.05:
            faults.append(f"memory grew by {growth:.1%}")
    return faults


def parse():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=tuple(SIZES), default="narrow")
    options.add_argument("--checkpoint", type=Path, help="a folder with weights that never end, instead of new ones")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    options.add_argument("--frames", type=int, default=25)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--batch", type=int, default=16, help="rows of the server at once")
    options.add_argument("--dtype", default="float32")
    options.add_argument("--mlx-audio-python", help="a Python that has mlx-audio with its server")
    options.add_argument("--soak", type=float, help="seconds")
    options.add_argument("--json", action="store_true")
    return options.parse_args()


def main():
    options = parse()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        scratch = Path(scratch)
        folder = options.checkpoint or write_checkpoint(scratch / "checkpoint", size=options.size, eos_gain=0.0)
        width = json.loads((folder / "config.json").read_text("utf-8"))["talker_config"]["hidden_size"]
        vector = np.random.RandomState(0).standard_normal(width)
        voice = scratch / "anna.npy"
        np.save(voice, (10.25 * vector / np.linalg.norm(vector)).astype(np.float32))
        library = scratch / "voices"
        library.mkdir()
        np.save(library / "anna.npy", np.load(voice))
        port = free_port()
        command = ours(folder, library, port, options.dtype, options.batch)
        pid = stack.enter_context(process(command, port, "/health", scratch / "ours.log"))
        if options.soak:
            faults = soak(port, pid, options.soak, options.frames)
            print("\n".join(faults) or "nothing was lost")
            sys.exit(1 if faults else 0)
        said = {"input": TEXT, "response_format": "pcm", "stream_format": "audio"}
        servers = {"ours": (port, {**said, "voice": "anna", "max_new_tokens": options.frames + 1})}
        if options.mlx_audio_python:
            other = free_port()
            launcher = Path(__file__).with_name("mlx_audio_server.py")
            command = [options.mlx_audio_python, str(launcher), "--host", "127.0.0.1", "--port", str(other)]
            stack.enter_context(process(command, other, "/v1/models", scratch / "mlx-audio.log"))
            body = {"input": TEXT, "model": str(in_dtype(folder, scratch / "cast", options.dtype))}
            body |= {"response_format": "pcm", "stream": True, "streaming_interval": 0.32}
            servers["mlx-audio"] = (other, {**body, "voice": None, "max_tokens": options.frames})
        rows = measure(servers, options.clients, options.frames, options.rounds)
    print(f"{processor()}, {os.cpu_count()} cores, {options.size}, {options.dtype}, {options.frames} frames each")
    for name, by_count in rows.items():
        table(name, by_count)
    result = {"size": options.size, "dtype": options.dtype, "rows": rows}
    if options.clients and min(options.clients) == 1:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.checkpoint or write_checkpoint(Path(scratch) / "c", size=options.size, eos_gain=0.0)
            voice = Path(scratch) / "anna.npy"
            np.save(voice, (10.25 * vector / np.linalg.norm(vector)).astype(np.float32))
            first, whole = in_process(folder, voice, options.frames, options.rounds, options.dtype)
        one = rows["ours"][1]
        print(
            f"without a server: first sound {first * 1e3:.0f} ms, all of it {whole:.2f} s; through it "
            f"{one['first_byte'] * 1e3:.0f} ms and {one['elapsed']:.2f} s"
        )
        result["in_process"] = {"first": first, "whole": whole}
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
