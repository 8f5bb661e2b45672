"""What training and head fitting refuse, by name.

TrainingError(AdaptersError)
├── ExampleTooLong             example_too_long
├── NothingToLearn             nothing_to_learn
├── CheckpointMismatch         checkpoint_mismatch
├── TraceMissing               trace_missing
├── DatanetMismatch            datanet_mismatch
├── BaseMismatch               base_mismatch
├── BadHeadFile                bad_head
├── UnevenRanks                uneven_ranks
├── PackageMissing             package_missing
├── PackageChanged             package_changed
├── HeadMissing                head_missing
├── RequestTooLong             request_too_long
├── BankMismatch               bank_mismatch
├── BankIncomplete             bank_incomplete
├── BankInterrupted            bank_interrupted
└── BankCorrupted              bank_corrupted
"""

from adapters.errors import Invalid


class TrainingError(Invalid):
    """Base of the tree."""

    code = "training_error"


class ExampleTooLong(TrainingError):
    """An example has more tokens than a pack may hold."""

    code = "example_too_long"


class NothingToLearn(TrainingError):
    """No example of the Datanet version has a supervised token."""

    code = "nothing_to_learn"


class CheckpointMismatch(TrainingError):
    """The work directory holds a checkpoint of another run (data, base, seed or hyperparameters differ)."""

    code = "checkpoint_mismatch"


class TraceMissing(TrainingError):
    """The training trace is not beside the package: the adapter was trained elsewhere or the work files are gone."""

    code = "trace_missing"


class DatanetMismatch(TrainingError):
    """The export is of another Datanet version than the one the package was trained on."""

    code = "datanet_mismatch"


class BaseMismatch(TrainingError):
    """The base directory is not the base model the package was trained on."""

    code = "base_mismatch"


class BadHeadFile(TrainingError):
    """Not an openledger-head/1 file, or inconsistent with itself."""

    code = "bad_head"


class PackageMissing(TrainingError):
    """The adapter of a receipt is not on this machine."""

    code = "package_missing"


class PackageChanged(TrainingError):
    """The files of a package are not those that its digest names."""

    code = "package_changed"


class HeadMissing(TrainingError):
    """The adapter has no attribution head, so its tokens were not scored."""

    code = "head_missing"


class RequestTooLong(TrainingError):
    """A request has more tokens than an audit scores again."""

    code = "request_too_long"


class UnevenRanks(TrainingError):
    """The adapter's modules have different ranks."""

    code = "uneven_ranks"


class BankMismatch(TrainingError):
    """The bank directory was made for another Datanet version, base model or recipe."""

    code = "bank_mismatch"


class BankIncomplete(TrainingError):
    """Runs that are asked for were not trained yet."""

    code = "bank_incomplete"


class BankInterrupted(TrainingError):
    """A worker process of the bank died; finished runs stay and the bank can go on."""

    code = "bank_interrupted"


class BankCorrupted(TrainingError):
    """A file of the bank cannot be read."""

    code = "bank_corrupted"
