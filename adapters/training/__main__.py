"""python -m adapters.training EXPORT --base DIR --out DIR: train an adapter on an export and fit its head."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapters.training.config import HeadConfig, TrainingConfig
from adapters.training.fit import fit_head
from adapters.training.progress import TerminalBar
from adapters.training.train import train_adapter


def main() -> None:
    """Command line: prints the package directory and the digests of weights and head."""
    parser = argparse.ArgumentParser(prog="python -m adapters.training", description=__doc__)
    parser.add_argument("export", type=Path, help="a Datanet version's export directory")
    parser.add_argument("--base", type=Path, required=True, help="base model directory")
    parser.add_argument("--out", type=Path, required=True, help="package directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainer", default="local", help="account of the trainer")
    parser.add_argument("--host", default="local", help="account of whose machine this is")
    parser.add_argument("--epochs", type=int, default=TrainingConfig.max_epochs)
    parser.add_argument("--threads", type=int, default=TrainingConfig.threads)
    parser.add_argument("--train-a", action="store_true", help="train A too, and trace it; else A stays as drawn")
    parser.add_argument("--learning-rate-ppm", type=int, default=TrainingConfig.learning_rate_ppm)
    given = parser.parse_args()
    bar = TerminalBar()
    trained = train_adapter(
        given.export,
        given.base,
        given.out,
        seed=given.seed,
        config=TrainingConfig(
            max_epochs=given.epochs,
            threads=given.threads,
            train_a=given.train_a,
            learning_rate_ppm=given.learning_rate_ppm,
        ),
        trainer=given.trainer,
        host=given.host,
        progress=bar,
    )
    fitted = fit_head(given.out, given.export, given.base, config=HeadConfig(threads=given.threads), progress=bar)
    print(trained.package_dir, trained.weights_digest, fitted.head_digest)


if __name__ == "__main__":
    main()
