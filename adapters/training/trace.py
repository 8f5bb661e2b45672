"""The training trace: how each contributor's gradients moved the weights, through the optimizer's own steps.

AdamW's step is linear in the gradient but for the shared second moment, so B_t = decay^t B_0 + sum_c B_c,t when the
first moment and the update are kept per contributor (`kernels.reference.trace_update`). With B_0 = 0 the identity is
B = sum_c B_c. A trained A begins elsewhere: A = decay^t A_0 + sum_c A_c, and what is left of A_0 is nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.training.config import TrainingConfig
from kernels.ops import trace_update
from kernels.reference import AdamW


@dataclass
class TraceState:
    """Optimizer and trace state of one run. P parameters (all that is trained, flat), C contributors.

    parameter [P]; trace, first_moment, in_run [C, P]; second_moment [P]; `initial` [P] is what weight decay has left of
    the parameter before the first step. `in_run` is -sum over steps of lr times the
    contributor's (clipped) gradient: the in-run first-order sums. All fp64: in fp32 the identity B = sum_c B_c drifted
    to 2.8e-5 of the largest weight over 168 steps of the demo; the model computes with B rounded to its own dtype.
    """

    parameter: Tensor
    trace: Tensor
    first_moment: Tensor
    second_moment: Tensor
    in_run: Tensor
    initial: Tensor

    @classmethod
    def start(cls, parameter: Tensor, contributors: int) -> TraceState:
        """The state before the first step from `parameter` [P]."""
        per_contributor = [torch.zeros(contributors, parameter.numel(), dtype=torch.float64) for _ in range(3)]
        master = parameter.double()
        trace, first_moment, in_run = per_contributor
        return cls(master.clone(), trace, first_moment, torch.zeros_like(master), in_run, initial=master.clone())

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors of a checkpoint."""
        return dict(vars(self))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Copy a checkpoint's tensors into this state, in place."""
        for name, tensor in vars(self).items():
            tensor.copy_(tensors[name])

    def step(self, gradient: Tensor, step: int, lr: float, config: TrainingConfig) -> float:
        """One AdamW step from per-contributor gradients [C, P]; `step` counts from 1. Returns the norm before clipping.

        Clipping scales all contributors' gradients alike, by the norm of their sum, as `clip_grad_norm_` does.
        """
        norm = float(torch.linalg.vector_norm(gradient.sum(0)))
        gradient = gradient.double() * min(1.0, config.clip_norm_ppm / 1e6 / (norm + 1e-6))
        self.in_run.sub_(gradient, alpha=lr)
        adamw = AdamW(
            lr=lr,
            step=step,
            beta1=config.beta1_ppm / 1e6,
            beta2=config.beta2_ppm / 1e6,
            eps=config.epsilon_ppt / 1e12,
            weight_decay=config.weight_decay_ppm / 1e6,
        )
        self.initial.mul_(adamw.decay)
        owner = torch.arange(len(gradient))
        trace_update(
            self.parameter, self.trace, self.first_moment, self.second_moment, gradient.contiguous(), owner, adamw
        )
        return norm

    def identity_error(self) -> float:
        """max |parameter - initial - sum_c trace_c| / max |parameter|."""
        scale = float(self.parameter.abs().max()) or 1.0
        return float((self.parameter - self.initial - self.trace.sum(0)).abs().max()) / scale
