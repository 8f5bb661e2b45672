"""A Datanet's policy: how the price of a token is split among the roles, and from when on.

The first policy holds from its making; a change from the first day of the period that it states, which lies ahead.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from adapters.document import Document
from adapters.errors import InvalidPolicy, RetroactivePolicy

ROLES = ("contributors", "trainer", "host", "governance", "treasury")
WHOLE_PPM = 1_000_000
PERIOD = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?\Z")
NOTICE_MS = 60_000  # a change is recorded at least a minute ahead: whoever serves has seen it by then
DAY_MS = 86_400_000

DEFAULT_SPLIT_PPM: Mapping[str, int] = {
    "contributors": 600_000,
    "trainer": 150_000,
    "host": 150_000,
    "governance": 50_000,
    "treasury": 50_000,
}
"""Parts per million of the price; what a Datanet gets that names no policy of its own."""


def check_split(split_ppm: Mapping[str, int]) -> dict[str, int]:
    """A plain copy in the order of ROLES.

    Raises InvalidPolicy unless the keys are exactly ROLES and the values non-negative integers with sum 1,000,000.
    """
    if set(split_ppm) != set(ROLES):
        raise InvalidPolicy(f"a split names exactly {', '.join(ROLES)}")
    for role, share_ppm in split_ppm.items():
        if isinstance(share_ppm, bool) or not isinstance(share_ppm, int) or share_ppm < 0:
            raise InvalidPolicy(f"the share of {role} must be a non-negative integer of parts per million")
    total_ppm = sum(split_ppm.values())
    if total_ppm != WHOLE_PPM:
        raise InvalidPolicy(f"the shares add up to {total_ppm} ppm instead of {WHOLE_PPM}")
    return {role: split_ppm[role] for role in ROLES}


def policy_document(
    datanet: str,
    split_ppm: Mapping[str, int],
    set_by: str,
    now_ms: int,
    previous: str | None = None,
    effective: str | None = None,
    votes: Sequence[str] = (),
) -> Document:
    """A policy as it is recorded. A change (`previous`) states its period, by default the next month.

    `votes` are the documents that made it, if votes did. Raises InvalidPolicy, RetroactivePolicy (require_ahead).
    """
    value: dict[str, Any] = {
        "type": "policy",
        "datanet": datanet,
        "split_ppm": split_ppm,
        "set_by": set_by,
        "previous": previous,
    }
    if previous is not None:
        effective = effective or next_month(now_ms)
        require_ahead(effective, now_ms)
        value["effective"] = effective
    if votes:
        value["votes"] = list(votes)
    return Document.of({**value, "created_ms": now_ms})


def require_ahead(effective: str, now_ms: int) -> None:
    """InvalidPolicy for a period that is neither YYYY-MM nor YYYY-MM-DD, RetroactivePolicy for one that has begun."""
    if first_ms(effective) < now_ms + NOTICE_MS:
        raise RetroactivePolicy(f"a policy is changed for a period ahead, and {effective} has begun")


def holds_from_ms(policy: Mapping[str, object]) -> int:
    """When a policy's value takes effect, in ms since 1970."""
    return first_ms(str(policy["effective"])) if "effective" in policy else int(str(policy["created_ms"]))


def in_force(newest: Document, read: Callable[[str], Document], at_ms: int) -> Document:
    """The policy that holds at a time: of those whose period has begun, the one that was recorded last."""
    policy = newest
    while holds_from_ms(policy.value()) > at_ms and policy.value()["previous"] is not None:
        policy = read(policy.value()["previous"])
    return policy


def first_ms(period: str) -> int:
    """The beginning (UTC) of a month YYYY-MM or a day YYYY-MM-DD. Raises InvalidPolicy."""
    if not isinstance(period, str) or not PERIOD.match(period):
        raise InvalidPolicy(f"effective: {period!r} is neither YYYY-MM nor YYYY-MM-DD")
    try:
        day = date.fromisoformat(period if len(period) == 10 else f"{period}-01")
    except ValueError as error:
        raise InvalidPolicy(f"effective: {period}: {error}") from None
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def next_month(now_ms: int) -> str:
    """The calendar month after the running one."""
    day = datetime.fromtimestamp(now_ms // 1000, UTC).date().replace(day=1)
    return (day + timedelta(days=31)).strftime("%Y-%m")
