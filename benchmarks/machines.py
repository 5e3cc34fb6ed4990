"""A dask scheduler and workers on this machine, each in a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 60  # seconds to start


class Machines:
    """address: the scheduler's; workers: {address: process}. `work` starts workers."""

    def __init__(self, folder):
        """folder: where the processes run, and where relative names of models lead from."""
        self.folder, self.workers = folder, {}
        file = folder / "scheduler.json"
        self.scheduler = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
        self._wait(lambda: file.exists() and file.read_text().rstrip().endswith("}"), self.scheduler)
        self.address = json.loads(file.read_text())["address"]

    def work(self, count=1, *options):
        """Start workers, and return the addresses of all there are."""
        options = options or ("--nthreads", "1")
        for process in [self._start("dask_worker", self.address, "--no-nanny", *options) for _ in range(count)]:
            log = self.folder / f"{process.pid}.log"
            self._wait(lambda log=log: "Registered to:" in log.read_text(), process)
            lines = [line for line in log.read_text().splitlines() if "Start worker at:" in line]
            self.workers[lines[0].split()[-1]] = process
        return list(self.workers)

    def _start(self, program, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.{program}", *map(str, arguments), "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(self.folder / "starting.log", "w") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        os.rename(self.folder / "starting.log", self.folder / f"{process.pid}.log")
        return process

    def _wait(self, ready, process):
        start = time.monotonic()
        while not ready():
            assert process.poll() is None and time.monotonic() - start < LIMIT, self.logs()
            time.sleep(0.02)

    def logs(self):
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("*.log")))

    def end(self):
        for process in (*self.workers.values(), self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


@contextlib.contextmanager
def machines(folder, count=0, *options):
    """A scheduler with workers, which end with the block."""
    made = Machines(folder)
    try:
        made.work(count, *options)
        yield made
    finally:
        made.end()
