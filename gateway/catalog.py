"""Which model a name leads to: the base model under its own name, adapters under namespace/adapter[:tag]."""

from collections.abc import Iterator
from dataclasses import dataclass

from adapters.base import BaseModel
from adapters.digests import hex_of
from adapters.errors import AdaptersError
from adapters.registry import RegisteredAdapter, Registry
from gateway.errors import ModelNotFound
from gateway.terms import TermsBook
from metering.terms import Terms


@dataclass(frozen=True)
class ServedModel:
    """A name resolved: what the engine calls it, and on which terms its tokens are sold."""

    name: str
    engine_name: str
    base: str
    adapter: RegisteredAdapter | None
    terms: Terms

    @property
    def adapter_digest(self) -> str | None:
        return self.adapter.digest if self.adapter else None

    @property
    def head(self) -> str | None:
        return self.adapter.head if self.adapter else None


class Catalog:
    """All that can be asked for by name."""

    def __init__(self, base: BaseModel, base_terms: Terms, registry: Registry, terms: TermsBook) -> None:
        self.base = base
        self._base_terms = base_terms
        self._registry = registry
        self._terms = terms

    def resolve(self, name: str, param: str = "model") -> ServedModel:
        """The model behind a name, given in `param`. Raises ModelNotFound, also for revoked adapters."""
        if name == self.base.name:
            return ServedModel(name, name, self.base.digest, None, self._base_terms)
        try:
            adapter = self._registry.resolve(name)
        except AdaptersError:
            raise ModelNotFound(name, param) from None
        return ServedModel(name, hex_of(adapter.digest), self.base.digest, adapter, self._terms.of(adapter))

    def staged(self, adapter: RegisteredAdapter) -> ServedModel:
        """An adapter that has no name yet, under its digest, on the terms that it would get."""
        terms = self._terms.draft(adapter)
        return ServedModel(adapter.digest, hex_of(adapter.digest), self.base.digest, adapter, terms)

    def composed(self, adapter: RegisteredAdapter) -> ServedModel:
        """A composition that a request made, under its digest: it has no other name."""
        return ServedModel(adapter.digest, hex_of(adapter.digest), self.base.digest, adapter, self._terms.of(adapter))

    def models(self) -> Iterator[dict]:
        """OpenAI model objects: the base, then every name that resolves."""
        yield {
            "id": self.base.name,
            "object": "model",
            "created": 0,
            "owned_by": "base",
            "base": self.base.digest,
            "adapter": None,
        }
        for registered in self._registry.list():
            name = f"{registered.namespace}/{registered.adapter}"
            for full in (name, *(f"{name}:{tag}" for tag in sorted(registered.tags))):
                try:
                    yield self.model(full)
                except ModelNotFound:
                    continue  # revoked: the name is kept, the model is gone

    def model(self, name: str) -> dict:
        """One OpenAI model object. Raises ModelNotFound."""
        if name == self.base.name:
            return next(self.models())
        try:
            adapter = self._registry.resolve(name)
        except AdaptersError:
            raise ModelNotFound(name) from None
        return {
            "id": name,
            "object": "model",
            "created": adapter.created_ms // 1000,
            "owned_by": adapter.publisher,
            "base": adapter.base,
            "adapter": adapter.digest,
            "head": adapter.head,
            "method": adapter.method,
            "fidelity_ppm": adapter.fidelity_ppm,
            "datanet": adapter.datanet,
            "datanet_version": adapter.datanet_version,
            "rank": adapter.rank,
        }
