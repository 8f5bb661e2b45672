"""Every error the gateway raises, and the one place where errors become HTTP.

ConfigurationError                 a setting is wrong; the process does not start
GatewayError                       has a status and an OpenAI error body
  InvalidRequest              400  invalid_request_error
    InvalidJson               400    code invalid_json
    UnknownParameter          400    code unknown_parameter
    UnsupportedParameter      400    code unsupported_parameter
    ContextLengthExceeded     400    code context_length_exceeded
    PackageRefused            400    code: the refusal's own name (zero_delta, pickle_file, ...)
  Unauthenticated             401  code invalid_api_key
  InsufficientCredit          402  code insufficient_quota
  Forbidden                   403  code forbidden
  NotFound                    404  code not_found
    ModelNotFound             404    code model_not_found
  Conflict                    409  code conflict
    KeyReused                 409    code idempotency_key_reused
    StillInFlight             409    code idempotency_key_in_use, with retry-after
  TooLarge                    413  code request_too_large
  RateLimited                 429  code rate_limit_exceeded, with retry-after
  Unavailable                 503  with retry-after
    EngineUnavailable         503    code engine_unavailable
    StoreStopped              503    code store_stopped
    CompositionPending        503    code composition_pending, or compositions_full
  EngineFailed                500  code engine_error
"""

import re
from collections.abc import Mapping

MISSING_KEY = "You didn't provide an API key. Send it as 'Authorization: Bearer sk-ol-...'."
WRONG_KEY = "Incorrect API key provided. Keys start with sk-ol- and are shown once, when they are made."


class ConfigurationError(Exception):
    """A setting cannot be used."""


class GatewayError(Exception):
    """An error with an HTTP status and the four fields of OpenAI's error object."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict:
        """OpenAI's error shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """retry-after in seconds (RFC 9110) and retry-after-ms, which the openai SDK prefers."""
        if self.retry_after_seconds is None:
            return {}
        seconds = max(self.retry_after_seconds, 0.001)
        return {"retry-after": str(max(1, round(seconds))), "retry-after-ms": str(round(seconds * 1000))}


class InvalidRequest(GatewayError):
    status, type = 400, "invalid_request_error"


class InvalidJson(InvalidRequest):
    code = "invalid_json"


class UnknownParameter(InvalidRequest):
    code = "unknown_parameter"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class PackageRefused(InvalidRequest):
    code = "package_refused"


class Unauthenticated(GatewayError):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"


class InsufficientCredit(GatewayError):
    status, type, code = 402, "insufficient_quota", "insufficient_quota"


class Forbidden(GatewayError):
    status, type, code = 403, "permission_error", "forbidden"


class NotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"

    def __init__(self, model: object, param: str = "model") -> None:
        super().__init__(f"The model `{model}` does not exist or you do not have access to it.", param=param)


class Conflict(GatewayError):
    status, type, code = 409, "invalid_request_error", "conflict"


class KeyReused(Conflict):
    code = "idempotency_key_reused"


class StillInFlight(Conflict):
    code = "idempotency_key_in_use"


class TooLarge(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class RateLimited(GatewayError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class EngineFailed(GatewayError):
    code = "engine_error"


class Unavailable(GatewayError):
    status, type, code = 503, "server_error", "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after_seconds: float = 2.0) -> None:
        super().__init__(message, code=code, retry_after_seconds=retry_after_seconds)


class EngineUnavailable(Unavailable):
    code = "engine_unavailable"


class StoreStopped(Unavailable):
    code = "store_stopped"


class CompositionPending(Unavailable):
    code = "composition_pending"


CONTEXT_LENGTH = re.compile(r"maximum context length|longer than the maximum model length|max_model_len", re.IGNORECASE)


def from_engine(status: int, body: object) -> GatewayError:
    """The engine's error answer as one of ours. Codes of our part of it are strings and kept; vLLM's are integers."""
    inner = body.get("error", body) if isinstance(body, Mapping) else {}
    message = str(inner.get("message") or f"The engine answered {status}.") if isinstance(inner, Mapping) else str(body)
    param = inner.get("param") if isinstance(inner, Mapping) else None
    code = inner.get("code") if isinstance(inner, Mapping) else None
    code = code if isinstance(code, str) else None
    if status == 404:
        return EngineFailed("The engine does not know this adapter.", code=code or "adapter_unavailable")
    if status in (400, 413, 422):
        kind = ContextLengthExceeded if CONTEXT_LENGTH.search(message) else InvalidRequest
        return kind(message, param=param if isinstance(param, str) else None, code=code)
    if status in (429, 502, 503, 504):
        return EngineUnavailable("The engine cannot take this request now.", code=code)
    return EngineFailed("The engine failed on this request.", code=code)
