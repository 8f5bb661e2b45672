"""Errors leave in OpenAI's shape, whoever raised them."""

import pytest

import adapters.errors
import metering.errors
from gateway import errors
from gateway.edge import as_gateway_error


def subclasses(kind: type) -> list[type]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in subclasses(child))]


@pytest.mark.parametrize(
    ("status", "body", "kind", "param"),
    [
        (
            400,
            {"error": {"message": "temperature must be", "code": 400, "param": "temperature"}},
            "InvalidRequest",
            "temperature",
        ),
        (
            400,
            {"error": {"message": "This model's maximum context length is 8 tokens", "code": 400}},
            "ContextLengthExceeded",
            None,
        ),
        (404, {"error": {"message": "The model x does not exist", "code": 404}}, "EngineFailed", None),
        (422, {"error": {"message": "?", "code": 422}}, "InvalidRequest", None),
        (500, {"error": {"message": "secret path", "code": 500}}, "EngineFailed", None),
        (503, "starting", "EngineUnavailable", None),
        (400, "not an object", "InvalidRequest", None),
    ],
)
def test_engine_errors_are_translated(status: int, body: object, kind: str, param: str | None) -> None:
    """vLLM's integer codes and exception names do not reach clients; a 5xx message does not either."""
    error = errors.from_engine(status, body)
    assert type(error).__name__ == kind
    assert error.body()["error"]["param"] == param
    assert not isinstance(error.code, int)
    assert "secret" not in error.message


@pytest.mark.parametrize("status", [404, 422, 503])
def test_the_codes_of_our_engine_are_passed_on(status: int) -> None:
    """A client learns which adapter failure it was; vLLM's numbers stay behind."""
    body = {"error": {"message": "why", "code": "adapter_of_some_kind", "param": "model"}}
    assert errors.from_engine(status, body).code == "adapter_of_some_kind"


@pytest.mark.parametrize("kind", subclasses(adapters.errors.AdaptersError)[1:], ids=lambda kind: kind.__name__)
def test_every_refusal_of_the_adapters_package_keeps_its_code(kind: type) -> None:
    """A client can act on the code; the status follows from the category."""
    error = kind.__new__(kind)
    error.message = "why"
    statuses = {"not_found": 404, "forbidden": 403, "conflict": 409, "too_large": 413, "invalid": 400}
    mapped = as_gateway_error(error)
    assert (mapped.status, mapped.code) == (statuses[error.category], error.code)


def test_a_stopped_journal_is_503_with_retry_after() -> None:
    """The SDK waits as long as the header says."""
    mapped = as_gateway_error(metering.errors.JournalUnavailable("disk full"))
    assert mapped.status == 503
    assert mapped.headers() == {"retry-after": "5", "retry-after-ms": "5000"}


def test_an_unknown_exception_says_nothing_about_itself() -> None:
    """Our bugs are 500s without details."""
    mapped = as_gateway_error(RuntimeError("password"))
    assert (mapped.status, mapped.code) == (500, "internal_error")
    assert "password" not in mapped.message
