"""Processes that end with their parent, and forks that wait for other threads. Ctrl-C and SIGTERM: training/test_train.py."""

import os
import signal
import sys
import threading
import time

import pytest
import torch

from nlnet.engine.signals import end_with_parent, wait_for_threads

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux's")


def child(parent: int) -> int:
    """How a forked process ends that asks to end with a parent of that id; 7 if it goes on."""
    pid = os.fork()
    if pid == 0:
        end_with_parent(signal.SIGKILL, parent)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@linux
def test_a_parent_that_died_before_the_request_is_noticed():
    """A trainer that is killed between the fork of a worker and the worker's request left the worker running."""
    assert child(os.getpid()) == 7
    assert child(os.getpid() + 1) == -signal.SIGKILL


@linux
def test_the_wait_lasts_as_long_as_a_thread_runs():
    """One product in a thread, which holds no GIL: main may go on once it is over, and at once where nothing runs."""
    x, took = torch.randn(2500, 2500), []

    def multiply() -> None:
        begin = time.perf_counter()
        torch.mm(x, x)
        took.append(time.perf_counter() - begin)

    thread = threading.Thread(target=multiply)
    thread.start()
    begin = time.perf_counter()
    wait_for_threads(seconds=60)
    waited = time.perf_counter() - begin
    thread.join()
    assert waited > took[0] / 2
    begin = time.perf_counter()
    wait_for_threads(seconds=60)
    assert time.perf_counter() - begin < 10


@linux
def test_the_wait_has_an_end():
    stop = threading.Event()

    def spin() -> None:
        x = torch.randn(2000, 2000)
        while not stop.is_set():
            x @ x

    thread = threading.Thread(target=spin)
    thread.start()
    start = time.perf_counter()
    wait_for_threads(seconds=0.3)
    took = time.perf_counter() - start
    stop.set()
    thread.join()
    assert took < 10
