"""The readout basis P: k directions of the residual stream that separate tokens, one for all heads of a base."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.base import base_digest

FOLDER = "openledger"
"""Subfolder of the base directory: engines read every *.safetensors beside config.json as weights."""


def readout_basis(base_dir: Path, causal_lm: Any, k: int) -> Tensor:
    """P [D, k] fp32 of a base model, computed once and kept under `base_dir/openledger/`.

    Its columns are the leading eigenvectors of diag(g) Cov(rows of W_U) diag(g), g the final norm's weight: the
    directions in which the gradients of logits differ most. Every head of one base holds the same bytes, so an engine
    keeps one W_P = W_U diag(g) P for all of them. A cache for another base digest is made anew; a directory that may
    not be written to goes without.
    """
    path = base_dir / FOLDER / f"readout-basis-k{k}.safetensors"
    digest = base_digest(base_dir)
    cached = load_file(path).get("P") if path.is_file() and _digest_of(path) == digest else None
    if cached is not None:
        return cached
    basis = principal_directions(causal_lm.lm_head.weight, causal_lm.model.norm.weight, k)
    try:
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({"P": basis}, temporary, {"base": digest})
        os.replace(temporary, path)
    except OSError:
        pass
    return basis


def principal_directions(unembedding: Tensor, norm_weight: Tensor, k: int) -> Tensor:
    """Leading k eigenvectors [D, k] (fp32, orthonormal, largest entry positive) of the scaled unembedding covariance.

    unembedding [V, D], norm_weight [D]; computed in fp64.
    """
    total = torch.zeros(unembedding.shape[1], dtype=torch.float64)
    outer = torch.zeros(unembedding.shape[1], unembedding.shape[1], dtype=torch.float64)
    for rows in unembedding.detach().split(8192):
        wide = rows.double() * norm_weight.detach().double()
        total += wide.sum(0)
        outer += wide.T @ wide
    count = len(unembedding)
    _, vectors = torch.linalg.eigh(outer / count - torch.outer(total, total) / count**2)
    leading = vectors.flip(1)[:, :k]
    peak = leading.gather(0, leading.abs().argmax(0, keepdim=True))
    return (leading * peak.sign()).float().contiguous()


def _digest_of(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("base", "")
