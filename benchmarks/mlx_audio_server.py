"""mlx-audio's own server, as benchmarks.serve starts it with the Python of an environment that has mlx-audio.

Its worker asks for a GPU's stream without a look whether there is one, and dies on a CPU: the first request then waits
forever. Where there is no GPU it gets a second stream of the CPU instead, and works. Nothing else is changed.
"""

import mlx.core as mx
from mlx_audio import server

if not mx.metal.is_available() and not getattr(mx, "cuda", mx.metal).is_available():
    new_stream = mx.new_stream
    mx.new_stream = lambda device: new_stream(mx.cpu)

server.main()
