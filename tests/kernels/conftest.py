"""Triton decides at decoration whether a kernel is interpreted: interpreted kernels live in a process of their own."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """interpreted(check, operation, **sizes): the check's result in a process where Triton interprets its kernels.

    `os.putenv` reaches the process before its first import of triton, and this one not at all.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=os.putenv, initargs=("TRITON_INTERPRET", "1")) as pool:
        yield lambda check, *args, **kwargs: pool.submit(check, *args, **kwargs).result()
