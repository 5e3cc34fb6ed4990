"""Speaks a text through a server while it is still being written, and prints when sound comes. Writes live.wav.

python -m mlx_qwen3tts.serve --model miniature      (in another terminal)
python examples/live.py [http://127.0.0.1:8880]
"""

import json
import sys
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import suppress

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


def words() -> Iterator[str]:
    """What a language model would write."""
    for word in ("Hello, ", "this ", "is ", "my ", "voice. ", "It is ", "a small ", "model."):
        time.sleep(0.05)
        yield word


def write(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):  # `main` says why
        for word in words():
            socket.send(json.dumps({"type": "input.text", "text": word}))
        socket.send(json.dumps({"type": "input.done"}))


def main() -> None:
    url = (sys.argv[1:] or ["http://127.0.0.1:8880"])[0].replace("http", "ws", 1)
    with connect(f"{url}/v1/audio/speech/stream") as socket, wave.open("live.wav", "wb") as file:
        file.setparams((1, 2, 24000, 0, "NONE", ""))  # mono, 16 bits, 24 kHz: what comes where no format is named
        socket.send(json.dumps({"type": "session.config", "language": "English", "seed": 1}))
        threading.Thread(target=write, args=(socket,)).start()
        begun = time.perf_counter()
        for message in socket:
            if isinstance(message, bytes):
                print(f"after {time.perf_counter() - begun:.2f} s: {len(message) / 48000:.2f} s of sound")
                file.writeframes(message)
            elif (told := json.loads(message))["type"] == "session.done":
                break
            elif told["type"] == "error":
                sys.exit(told["message"])


if __name__ == "__main__":
    main()
