"""The machine's read bandwidth as a worker of `benchmarks.compare`."""

import time

import numpy as np

from .serve import serve

REPEATS = 5


class Memory:
    def load(self, megabytes):
        """Fill a float32 matrix far larger than any cache; written, so that every page is its own."""
        self.matrix = np.ones((64 * megabytes, 4096), np.float32)
        self.vector = np.ones(4096, np.float32)
        return {}

    def read(self):
        """Bytes a second of a matrix-vector product, the best of a few.

        It is what a decoded frame does with each weight. NumPy brings an OpenBLAS of its own, which runs it in
        OPENBLAS_NUM_THREADS threads, as many as the workers' BLAS has.
        """
        best = float("inf")
        for _ in range(REPEATS):
            start = time.perf_counter()
            self.matrix @ self.vector
            best = min(best, time.perf_counter() - start)
        return {"bytes_per_second": self.matrix.nbytes / best}


if __name__ == "__main__":
    serve(Memory())
