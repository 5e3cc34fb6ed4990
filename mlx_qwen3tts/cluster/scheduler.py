"""A dask.distributed cluster: reached, checked, and given work whose results come back as they are done.

https://distributed.dask.org. What a lost worker had, dask runs on another one. A cluster trusts its network: whoever
reaches the scheduler can run any code on its workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import checks
from ..errors import ClusterError, MissingExtra, install_hint

PATIENCE = 10  # seconds for the scheduler's first answer
GONE = 60.0  # seconds without a single worker; a nanny starts a new one within three
LOOK = 1.0  # seconds between two looks for workers while nothing ends
AHEAD = 2  # parcels that a worker has: the one that it is at and the next
ALIKE = ("mlx-qwen3tts", "mlx", "distributed")  # packages of which all machines need the same version


def check_address(address: object) -> str:
    """The address of a scheduler, such as tcp://host:8786; MissingExtra where dask.distributed is not installed."""
    name = str(checks.path(address, "workers")) if not isinstance(address, str) else address
    scheme, _, place = name.rpartition("://")
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or scheme not in ("", "tcp", "tls", "ws", "wss"):
        raise ClusterError(f"workers {name!r} is not the address of a scheduler, tcp://host:8786", param="workers")
    if importlib.util.find_spec("distributed") is None:
        raise MissingExtra(f"--workers needs dask's distributed: {install_hint('cluster')}", param="workers")
    return name


class Cluster:
    """A connection to a scheduler, for a `with` block."""

    def __init__(self, address: str) -> None:
        """address: of the scheduler. ClusterError where it does not answer or has no workers, or where one of them has
        another version of what must be alike."""
        self.address = check_address(address)
        self._log = logging.getLogger("distributed")  # which says at length what is said in one line here
        self._level = self._log.level
        self._log.setLevel(logging.CRITICAL)
        try:
            self.client = self._connect()
        except BaseException:
            self._log.setLevel(self._level)
            raise
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Any:
        import distributed

        try:
            with _quietly():
                return distributed.Client(self.address, timeout=PATIENCE, set_as_default=False, name="mlx_qwen3tts")
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            message = f"no scheduler answers at {self.address} ({reason}); start one with `dask scheduler`"
            raise ClusterError(message, param="workers") from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave. Workers finish what they are at, and it is forgotten."""
        self.client.close(timeout=PATIENCE)
        self._log.setLevel(self._level)

    def threads(self) -> dict[str, int]:
        """{address of a worker: its threads}."""
        return self._asked(self.client.nthreads)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """What the scheduler answers; ClusterError where it has gone."""
        try:
            return ask()
        except (OSError, asyncio.TimeoutError):
            raise self._lost() from None

    def _lost(self) -> ClusterError:
        return ClusterError(f"the scheduler at {self.address} has gone; start it again, then the same command")

    def _check(self) -> None:
        threads = self.threads()
        start = f"dask worker {self.address} --nthreads 1 --memory-limit 0"  # dask's own limit is memory / processors
        if not threads:
            message = f"the scheduler at {self.address} has no workers; start some: {start}"
            raise ClusterError(message, param="workers")
        if many := [name for name, count in threads.items() if count > 1]:
            message = f"worker {many[0]} has {threads[many[0]]} threads of which one can speak; start it so: {start}"
            warnings.warn(message, stacklevel=4)
        found = self._asked(lambda: self.client.get_versions(check=False, packages=list(ALIKE)))
        here = found["client"]["packages"]
        for name, worker in found["workers"].items():
            for package in ALIKE:
                there = worker["packages"].get(package)
                if there is None and here[package] is not None:
                    raise ClusterError(f"worker {name} lacks {package}: {install_hint('cluster')}", param="workers")
                if there != here[package]:
                    message = (
                        f"worker {name} has {package} {there}, this machine {here[package]}; they must be the same"
                    )
                    raise ClusterError(message, param="workers")

    def each(self, work: Callable[..., Any], parcels: Iterable[tuple[Any, ...]], done: Callable[[Any], object]) -> None:
        """Have `work(*parcel)` done for every parcel on some worker, and call `done` with each result as it comes.

        A parcel is taken when there is a worker for it. What the work raises is raised here. ClusterError where the
        scheduler or all workers have gone, and for work that has ended several workers.
        """
        waiting, seen, running = iter(parcels), time.monotonic(), set()
        parcel = next(waiting, None)
        while parcel is not None or running:
            workers = len(self.threads())
            while parcel is not None and len(running) < AHEAD * workers:
                with _quietly():  # dask advises to scatter what is large; that would be lost with a worker
                    running.add(self.client.submit(work, *parcel, pure=False))
                parcel = next(waiting, None)
            ended = self._ended(running)
            for future in ended:
                done(self._result(future))
            running -= ended
            if workers or ended:
                seen = time.monotonic()
            elif time.monotonic() - seen > GONE:
                raise ClusterError(f"all workers of {self.address} have gone; start some, then the same command again")

    def _ended(self, running: set[Any]) -> set[Any]:
        """Those of the futures that have ended, after LOOK seconds at the latest."""
        import distributed

        if not running:
            time.sleep(LOOK)
            return set()
        try:
            with self.client.as_current():
                looked: Any = distributed.wait(running, timeout=LOOK, return_when="FIRST_COMPLETED")
            return set(looked.done)
        except asyncio.TimeoutError:
            return set()
        except asyncio.CancelledError:
            raise self._lost() from None

    def _result(self, future: Any) -> Any:
        from distributed.scheduler import KilledWorker

        try:
            return future.result(timeout=PATIENCE)
        except KilledWorker:
            message = f"several workers of {self.address} ended at the same work; start them with --memory-limit 0"
            raise ClusterError(message) from None
        except asyncio.CancelledError:
            raise self._lost() from None
        except ModuleNotFoundError as error:  # on a worker that came later
            raise ClusterError(f"a worker lacks {error.name}: {install_hint('cluster')}", param="workers") from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
