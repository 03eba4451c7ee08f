"""One function over many jobs, in this process or in several."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from o2s.errors import InputError

Result = TypeVar("Result")


def outcomes(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[Result]:
    """The results of `function(*job)`, as they come; in this process if `workers` is 1.

    Workers end with the process that started them, however that one ends.

    Raises:
        InputError: a worker was killed.
        Exception: what the function raises ends the run; jobs that have not begun are dropped.
    """
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield function(*job)
        return
    # A fork server imports our modules once; forking this process, which has threads, is not safe.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([function.__module__])
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker)
    try:
        running = [pool.submit(function, *job) for job in jobs]
        for done in as_completed(running):
            yield done.result()
    except (BrokenProcessPool, EOFError):
        raise InputError(
            "a worker was killed, perhaps for want of memory; run again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the process that started the worker, and die with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
