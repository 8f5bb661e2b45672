"""Settings of a training run and of a head fit: two frozen dataclasses, checked at construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TrainingConfig:
    """Hyperparameters of one LoRA run (A at its seeded initialisation, B from zero, torch AdamW).

    The defaults memorise the invented facts (mean loss 0.007 nats in 223 steps; a rate of 3,000 ppm stayed at 0.25).
    `layers` counts adapted layers from the top; layers below them are run once and their output cached.
    `stop_loss_ppm` ends the run after an epoch whose mean loss (nats a token) is below it. Rates are integers in parts
    per million because they enter the canonical training record. `dtype` is that of the frozen base model; LoRA and
    optimizer are fp32 and wider. A is frozen unless `train_a`, which wants a lower rate: at 15,000 ppm the invented
    facts were at 0.97 nats again after the fifth epoch.
    """

    r: int = 8
    lora_alpha: int = 16
    layers: int = 8
    target_modules: tuple[str, ...] = ALL_LINEAR
    max_epochs: int = 7
    batch_packs: int = 2
    pack_tokens: int = 160
    learning_rate_ppm: int = 15_000
    warmup_steps: int = 10
    weight_decay_ppm: int = 10_000
    beta1_ppm: int = 900_000
    beta2_ppm: int = 990_000
    epsilon_ppt: int = 10_000
    clip_norm_ppm: int = 1_000_000
    stop_loss_ppm: int = 20_000
    checkpoint_every_s: int = 20
    threads: int = 2
    dtype: str = "float32"
    train_a: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype}")
        for name in ("r", "lora_alpha", "layers", "max_epochs", "batch_packs", "learning_rate_ppm", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        unknown = set(self.target_modules) - set(ALL_LINEAR)
        if unknown or not self.target_modules:
            raise ValueError(f"target_modules must be a non-empty subset of {ALL_LINEAR}, got {self.target_modules}")

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TrainingConfig:
        """The settings of a training record; what an older record does not name has its default."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items() if key in known
        }
        return cls(**given)

    def record(self) -> dict[str, object]:
        """The settings as canonical JSON values (integers, strings, arrays); `train_a` only where it is on."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return values if self.train_a else {key: value for key, value in values.items() if key != "train_a"}


@dataclass(frozen=True)
class Regime:
    """How a head is fitted to an adapter that memorised its Datanet, or to one that did not.

    `label_weight_ppm` of the target is provenance, the rest the exact scorer `exact` ("trace" or "ekfac"); `ridge_ppm`
    is relative to the mean squared feature norm. The head is calibrated on the Datanet's answers behind new phrases
    and, with `own_answers`, on what the adapter itself answers there. `k` readout directions and `d` tap
    directions are those of a fit at full width that carry most of the head's scores.
    """

    exact: str
    label_weight_ppm: int
    ridge_ppm: int
    own_answers: bool
    k: int
    d: int


MEMORISED = Regime("trace", label_weight_ppm=500_000, ridge_ppm=30_000, own_answers=False, k=32, d=32)
GENERALISED = Regime("ekfac", label_weight_ppm=0, ridge_ppm=100_000, own_answers=True, k=64, d=8)


@dataclass(frozen=True)
class HeadConfig:
    """How a head is fitted. The defaults were chosen on validation questions: docs/formats/head.md.

    `k` readout directions, None for the regime's; `taps` are module kinds, tapped on every adapted layer. `regime` None
    lets the training loss choose. At most `calibration_examples` examples and `calibration_tokens` tokens are fitted.
    `report_examples` prompts are answered where no questions are given; the first `full_gradient_answers` answers are
    also scored by full gradients, one backward pass a token.
    """

    k: int | None = None
    taps: tuple[str, ...] = ALL_LINEAR
    regime: Regime | None = None
    calibration_examples: int = 300
    calibration_tokens: int = 6_500
    report_examples: int = 48
    full_gradient_answers: int = 4
    max_new_tokens: int = 24
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        for name in ("calibration_examples", "calibration_tokens", "report_examples", "max_new_tokens", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.regime is not None and not 0 <= self.regime.label_weight_ppm <= 1_000_000:
            raise ValueError(f"label_weight_ppm must be 0 to 1,000,000, got {self.regime.label_weight_ppm}")
        unknown = set(self.taps) - set(ALL_LINEAR)
        if unknown or not self.taps:
            raise ValueError(f"taps must be a non-empty subset of {ALL_LINEAR}, got {self.taps}")

    def regime_of(self, final_loss_ppm: int) -> Regime:
        """`regime`, or MEMORISED below a final training loss of 0.2 nats a token and GENERALISED above.

        A memorised token has one source and labels say which. An adapter that only generalised has no single source:
        labels would teach a classifier of topics (ATTRIBUTION.md section 3: behind influence scores on real text, most
        of all beyond the owner).
        """
        if self.regime is not None:
            return self.regime
        return MEMORISED if final_loss_ppm < 200_000 else GENERALISED
