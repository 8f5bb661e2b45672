"""Why an adapter cannot serve a request.

EngineError
├── AdapterUnknown         404  adapter_not_found      no package of that digest on disk
├── AdapterInvalid         422  adapter_invalid        weights, config or head that do not fit the served base model
├── AdapterMemoryFull      503  adapter_memory_full    every adapter in memory is in use; try again
└── AdapterLoadFailed      503  adapter_load_failed    the machine failed, not the package: out of memory, disk error
"""


class EngineError(Exception):
    """An error that concerns one request. `code` is stable; `status` is the HTTP status it is answered with."""

    code = "engine_error"
    status = 500

    def body(self) -> dict[str, object]:
        """The answer's JSON, in OpenAI's error shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": "model", "code": self.code}}


class AdapterUnknown(EngineError):
    code, status = "adapter_not_found", 404


class AdapterInvalid(EngineError):
    code, status = "adapter_invalid", 422


class AdapterMemoryFull(EngineError):
    code, status = "adapter_memory_full", 503


class AdapterLoadFailed(EngineError):
    code, status = "adapter_load_failed", 503


BY_CODE = {kind.code: kind for kind in (AdapterUnknown, AdapterInvalid, AdapterMemoryFull, AdapterLoadFailed)}
