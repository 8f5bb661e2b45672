"""Locust's users over one Load: a closed loop (each waits for its answer) and an open loop (arrivals wait for nobody).

Importing this module imports locust, which patches the standard library for gevent: nothing but a load generator's own
process may import it.
"""

import time
from typing import Any, ClassVar

import gevent
from gevent.pool import Pool
from locust import HttpUser, constant, task
from locust.clients import HttpSession

from loadtest.behaviours import Ask, NarrowAdapter, perform
from loadtest.load import Load


class LoadUser(HttpUser):
    """Sessions with the key in place; slow readers have one of their own."""

    abstract = True
    wait_time = constant(0)
    load: ClassVar[Load]
    key: ClassVar[str]

    def session(self, narrow: bool = False) -> HttpSession:
        """A new session whose requests appear in locust's statistics."""
        session = HttpSession(self.host or "", request_event=self.environment.events.request, user=self)
        session.trust_env = False
        session.headers["authorization"] = f"Bearer {self.key}"
        if narrow:
            session.mount(self.host or "", NarrowAdapter())
        return session


class ClosedLoopUser(LoadUser):
    """One user: asks, reads, asks again."""

    abstract = True

    def on_start(self) -> None:
        self.sessions = {narrow: self.session(narrow) for narrow in (False, True)}

    @task
    def request(self) -> None:
        ask = self.load.next()
        self.load.seen.append(perform(self.sessions[ask.behaviour == "slow"], ask))


class ArrivalsUser(LoadUser):
    """The whole crowd: starts requests at the times of a Poisson process, whatever became of the ones before."""

    abstract = True
    fixed_count = 1
    rate: ClassVar[float]
    in_flight: ClassVar[Pool]

    def on_start(self) -> None:
        self.due = time.perf_counter()
        self.free: dict[bool, list[HttpSession]] = {False: [], True: []}

    @task
    def arrival(self) -> None:
        self.due += self.load.gap_seconds(self.rate)
        gevent.sleep(max(0.0, self.due - time.perf_counter()))
        self.in_flight.spawn(self._answer, self.load.next(), self.due)

    def _answer(self, ask: Ask, due: float) -> None:
        narrow = ask.behaviour == "slow"
        session = self.free[narrow].pop() if self.free[narrow] else self.session(narrow)
        self.load.seen.append(perform(session, ask, due))
        self.free[narrow].append(session)


def closed_loop(load: Load, host: str, key: str) -> type[LoadUser]:
    """The user class of a closed loop."""
    return _bound(ClosedLoopUser, load=load, host=host, key=key)


def open_loop(load: Load, host: str, key: str, rate: float) -> type[LoadUser]:
    """The user class of an open loop of `rate` requests a second."""
    return _bound(ArrivalsUser, load=load, host=host, key=key, rate=rate, in_flight=Pool())


def _bound(parent: type[LoadUser], **members: Any) -> type[LoadUser]:
    return type(parent.__name__.removesuffix("User"), (parent,), {"abstract": False, **members})
