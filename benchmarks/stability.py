"""Whether fine-tuning BlazePose lite stays finite: many seeds, at the default rate and at three times that.

    python benchmarks/stability.py --data ../shared/data --work runs/fine_tuning [--seeds 20] [--factors 1 3]
        [--steps 400] [--batch-size 2] [--json stability.json]

The recipe, photographs and clips (half hardest, half random persons) are those of ``fine_tuning.py``; the same
``--work`` shares the clips. Small batches have the noisier gradients, so they are the harder test, and the cheaper one.

Per factor: trainings, trainings with a loss or a weight that is not finite, the largest total loss of any
logged step against the first one (a training that is about to blow up shows there), and the last against the first.
Finished trainings are kept in ``--work``.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fine_tuning import MINED, RECIPE, Part, lspet, synthetic

from posesyn import load_estimator
from posesyn.errors import DivergenceError
from posesyn.storage.files import read_json, write_json
from posesyn.training.estimators.fine_tuning import fine_tune


def training(options: argparse.Namespace, factor: float, seed: int) -> dict[str, Any]:
    """One training: ``finite``, and the total losses that were logged; kept."""
    name = f"{factor:g}x_{seed}"
    path = options.work / "stability" / f"{name}.json"
    if not path.exists():
        estimator: Any = load_estimator(options.estimator, device="cpu")
        settings = replace(
            RECIPE, steps=options.steps, batch_size=options.batch_size, learning_rate=factor * estimator.learning_rate
        )
        out = options.work / "stability" / name
        found: dict[str, Any] = {"finite": True, "why": ""}
        try:
            real = Part(lspet(options.data, "train"), MINED)
            fine_tune(estimator, real, synthetic(options, "mixed"), out, settings, seed=seed, name=name)
        except DivergenceError as error:
            found = {"finite": False, "why": str(error)}
        found["finite"] &= all(bool(torch.isfinite(one).all()) for one in estimator.state_dict().values())
        found["losses"] = _losses(out / "curves.csv")
        found["finite"] &= all(map(math.isfinite, found["losses"]))
        write_json(path, found)
        shutil.rmtree(out)  # 20 MB each, and nobody asks for them again
    return read_json(path)


def _losses(path: Path) -> list[float]:
    if not path.exists():  # it blew up before the first row
        return []
    with path.open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--estimator", default="blazepose_lite")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--factors", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = {}
    for factor in options.factors:
        found = [training(options, factor, seed) for seed in range(options.seeds)]
        logged = [one["losses"] for one in found if one["losses"]]
        rows[f"{factor:g}x"] = {
            "trainings": len(found),
            "not finite": sum(not one["finite"] for one in found),
            "largest / first loss": max((max(losses) / losses[0] for losses in logged), default=math.nan),
            "last / first loss": sum(losses[-1] / losses[0] for losses in logged) / len(logged) if logged else math.nan,
        }
    for name, row in rows.items():
        print(f"{name:4s}", *(f"{column}: {value:.3g}" for column, value in row.items()), sep="  ")
    if options.json is not None:
        write_json(options.json, {"steps": options.steps, "batch_size": options.batch_size, "rows": rows})


if __name__ == "__main__":
    main()
