"""Everything this package refuses, by name.

    AdaptersError                      code                        category
    ├── NotFound                                                   not_found
    │   ├── NamespaceNotFound          namespace_not_found
    │   ├── DatanetNotFound            datanet_not_found
    │   ├── ContributionNotFound       contribution_not_found
    │   ├── VersionNotFound            datanet_version_not_found
    │   ├── AdapterNotFound            adapter_not_found
    │   ├── AdapterRevoked             adapter_revoked
    │   └── StagingNotFound            staging_not_found
    ├── Forbidden                                                  forbidden
    │   ├── NotOwner                   not_owner
    │   ├── NotContributor             not_contributor
    │   └── PolicyByVote               policy_by_vote
    ├── Conflict                                                   conflict
    │   ├── NamespaceTaken             namespace_taken
    │   ├── DuplicateExample           duplicate_example
    │   ├── AlreadyWithdrawn           already_withdrawn
    │   ├── AdapterTaken               adapter_taken
    │   ├── DeclaredFixed              declared_fixed
    │   └── CompositionsFull           compositions_full
    ├── TooLarge                                                   too_large
    │   ├── ContributionTooLarge       contribution_too_large
    │   └── PackageTooLarge            package_too_large
    └── Invalid                                                    invalid
        ├── InvalidName                invalid_name
        ├── InvalidDocument            invalid_document
        ├── InvalidLicence             invalid_licence
        ├── InvalidNearDuplicates      invalid_near_duplicates
        ├── InvalidPolicy              invalid_policy
        │   └── RetroactivePolicy      retroactive_policy
        ├── InvalidDeclared            invalid_declared
        ├── InvalidExample             invalid_example
        ├── EmptyDatanet               empty_datanet
        ├── ExportMismatch             export_mismatch
        ├── UnsupportedBase            unsupported_base
        └── InvalidPackage
            ├── BadArchive             bad_archive
            ├── UnsafePath             unsafe_path
            ├── PickleFile             pickle_file
            ├── FileNotAllowed         file_not_allowed
            ├── FileMissing            file_missing
            ├── BadSafetensors         bad_safetensors
            ├── BadAdapterConfig       bad_adapter_config
            ├── UnsupportedOption      unsupported_peft_option
            ├── RankTooHigh            rank_too_high
            ├── WrongBase              wrong_base
            ├── UnknownTargetModule    unknown_target_module
            ├── WrongTensorName        wrong_tensor_name
            ├── TensorMissing          tensor_missing
            ├── WrongShape             wrong_shape
            ├── WrongDtype             wrong_dtype
            ├── NotFinite              not_finite
            ├── ZeroDelta              zero_delta
            ├── BadTrainingRecord      bad_training_record
            ├── BadFidelity            bad_fidelity
            ├── BadHead                bad_head
            ├── HeadMismatch           head_mismatch
            ├── BadComposition         bad_composition
            └── CompositionMismatch    composition_mismatch

`code` is stable and goes to clients; `category` is what the HTTP edge maps to a status
(not_found 404, forbidden 403, conflict 409, too_large 413, invalid 400).
"""

from typing import ClassVar, Literal

Category = Literal["not_found", "forbidden", "conflict", "too_large", "invalid"]


class AdaptersError(Exception):
    """Base of the tree; never raised itself."""

    code: ClassVar[str] = "adapters_error"
    category: ClassVar[Category] = "invalid"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(AdaptersError):
    category = "not_found"


class Forbidden(AdaptersError):
    category = "forbidden"


class Conflict(AdaptersError):
    category = "conflict"


class TooLarge(AdaptersError):
    category = "too_large"


class Invalid(AdaptersError):
    category = "invalid"


class NamespaceNotFound(NotFound):
    """No account and no Datanet holds this name."""

    code = "namespace_not_found"


class DatanetNotFound(NotFound):
    code = "datanet_not_found"


class ContributionNotFound(NotFound):
    code = "contribution_not_found"


class VersionNotFound(NotFound):
    code = "datanet_version_not_found"


class AdapterNotFound(NotFound):
    """No adapter under this name, tag or digest."""

    code = "adapter_not_found"


class AdapterRevoked(NotFound):
    """The name leads to an adapter that its publisher or the operator revoked."""

    code = "adapter_revoked"


class StagingNotFound(NotFound):
    """The staged adapter was already committed, discarded or swept."""

    code = "staging_not_found"


class NotOwner(Forbidden):
    """The acting account does not own what it tries to change."""

    code = "not_owner"


class NotContributor(Forbidden):
    """A vote of somebody who has no accepted examples."""

    code = "not_contributor"


class PolicyByVote(Forbidden):
    """The contributors have voted on the policy; only a vote changes it."""

    code = "policy_by_vote"


class NamespaceTaken(Conflict):
    code = "namespace_taken"


class DuplicateExample(Conflict):
    """An example of the upload is already in the Datanet, or twice in the upload.

    `line` is the 1-based line of the upload; `contributor` and `contribution` name the earlier owner
    (None when the earlier copy is another line of the same upload).
    """

    code = "duplicate_example"

    def __init__(self, message: str, *, line: int, contributor: str | None, contribution: str | None) -> None:
        super().__init__(message)
        self.line = line
        self.contributor = contributor
        self.contribution = contribution


class AlreadyWithdrawn(Conflict):
    code = "already_withdrawn"


class AdapterTaken(Conflict):
    """The same bytes were registered before by another publisher."""

    code = "adapter_taken"


class DeclaredFixed(Conflict):
    """The same bytes were registered before with other declared shares; an adapter's declared shares do not change."""

    code = "declared_fixed"


class CompositionsFull(Conflict):
    """All compositions that would have to make way for another one are in use; it passes."""

    code = "compositions_full"


class ContributionTooLarge(TooLarge):
    code = "contribution_too_large"


class PackageTooLarge(TooLarge):
    code = "package_too_large"


class InvalidName(Invalid):
    code = "invalid_name"


class InvalidDocument(Invalid):
    """A value that canonical JSON cannot carry, or bytes that are not canonical JSON."""

    code = "invalid_document"


class InvalidLicence(Invalid):
    """Not an SPDX licence identifier or expression."""

    code = "invalid_licence"


class InvalidNearDuplicates(Invalid):
    """Not one of the two things a Datanet may do with near duplicates: accept, set-aside."""

    code = "invalid_near_duplicates"


class InvalidPolicy(Invalid):
    code = "invalid_policy"


class RetroactivePolicy(InvalidPolicy):
    """A change of policy for a time that has begun."""

    code = "retroactive_policy"


class InvalidDeclared(Invalid):
    """Declared weights that are not non-negative integers with a positive sum."""

    code = "invalid_declared"


class InvalidExample(Invalid):
    """A line of a contribution that is not an example; `line` is 1-based."""

    code = "invalid_example"

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class EmptyDatanet(Invalid):
    """A version needs at least one accepted example."""

    code = "empty_datanet"


class ExportMismatch(Invalid):
    """An export whose content does not lead to the version digest it claims."""

    code = "export_mismatch"


class UnsupportedBase(Invalid):
    """A base model directory whose files cannot be described."""

    code = "unsupported_base"


class InvalidPackage(Invalid):
    """Base of the refusals of an adapter package."""

    code = "invalid_package"


class BadArchive(InvalidPackage):
    """Not an uncompressed tar, truncated, or with a wrong header checksum."""

    code = "bad_archive"


class UnsafePath(InvalidPackage):
    """`..`, absolute or nested paths, links, devices, FIFOs."""

    code = "unsafe_path"


class PickleFile(InvalidPackage):
    """A file of a kind that executes code when loaded (.bin, .pt, .pkl, ...)."""

    code = "pickle_file"


class FileNotAllowed(InvalidPackage):
    """A name outside the package layout, or the same name twice."""

    code = "file_not_allowed"


class FileMissing(InvalidPackage):
    code = "file_missing"


class BadSafetensors(InvalidPackage):
    """Truncated, overlapping, gapped or otherwise malformed safetensors."""

    code = "bad_safetensors"


class BadAdapterConfig(InvalidPackage):
    code = "bad_adapter_config"


class UnsupportedOption(InvalidPackage):
    """A PEFT option the engine would have to ignore; `option` names it."""

    code = "unsupported_peft_option"

    def __init__(self, message: str, *, option: str) -> None:
        super().__init__(message)
        self.option = option


class RankTooHigh(InvalidPackage):
    code = "rank_too_high"


class WrongBase(InvalidPackage):
    """Made for another base model than the one that is served."""

    code = "wrong_base"


class UnknownTargetModule(InvalidPackage):
    """The base model has no such module, or no adapter can be put on it."""

    code = "unknown_target_module"


class WrongTensorName(InvalidPackage):
    """A tensor whose name is not `base_model.model.<module>.lora_{A,B}.weight`: an engine would skip it in silence."""

    code = "wrong_tensor_name"


class TensorMissing(InvalidPackage):
    """A targeted module without its A or B."""

    code = "tensor_missing"


class WrongShape(InvalidPackage):
    code = "wrong_shape"


class WrongDtype(InvalidPackage):
    code = "wrong_dtype"


class NotFinite(InvalidPackage):
    """NaN or infinity in a tensor."""

    code = "not_finite"


class ZeroDelta(InvalidPackage):
    """In every module A or B is all zero: the adapter would answer as the base model."""

    code = "zero_delta"


class BadTrainingRecord(InvalidPackage):
    code = "bad_training_record"


class BadFidelity(InvalidPackage):
    code = "bad_fidelity"


class BadHead(InvalidPackage):
    """Not an openledger-head/1 file, or with malformed metadata or tensors."""

    code = "bad_head"


class HeadMismatch(InvalidPackage):
    """A head built for another adapter, base model or Datanet version."""

    code = "head_mismatch"


class BadComposition(InvalidPackage):
    """No composition at all, or one whose parts or weights cannot be."""

    code = "bad_composition"


class CompositionMismatch(InvalidPackage):
    """Composing the parts it names gives another package."""

    code = "composition_mismatch"
