"""Does PoseAug make lifters better on people, actions and cameras they have not seen? Real mocap, four lifters.

    python benchmarks/poseaug_accuracy.py --work runs/poseaug [--only default official] [--table]

Cells (recipe, lifter, seed), the most important first; each writes ``WORK/cells/*.json``, so that a run that is stopped
goes on with the cell it was in, at the epoch it was in. ``--table`` prints what is done and stops.

Per lifter and seed: a pretraining on the train set; then from those weights, for the same number of lifter updates, at
the same rate in each of them (but ``official``: its rate falls through the warm-up too, so that its lifter begins a
sixth lower and ends a little higher): ``baseline`` goes on with the data, ``default`` and ``official`` are PoseAug's
two recipes, and the ablations are ``default`` without one part, or with spectral normalisation. A PoseAug update of
``default`` takes the baseline's batch of data and as many fakes beside it. All keep the epoch that is best on
validation data, of which half comes from the training's cameras and half from others (``poseaug_scenarios.py``); the
test sets decide nothing.
The 2D input is the exact projection. PA-MPJPE aligns by a similarity.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from poseaug_scenarios import scenarios

from posesyn.estimators.lifters.lifter import load_lifter, make_lifter
from posesyn.settings.lifters import LifterSettings, PoseAugSettings
from posesyn.storage.files import write_bytes
from posesyn.training.lifters.lifter import score
from posesyn.training.lifters.run import train_lifter, train_poseaug

LIFTERS = ("mlp", "videopose", "semgcn", "stgcn")
# A quarter of the published width, half for SemGCN: at the published one the cells of this file take days of two cores.
OPTIONS = {
    "mlp": {"width": 256},
    "videopose": {"width": 256},
    "semgcn": {"width": 64},
    "stgcn": {"width": 32, "dropout": 0},  # as PoseAug trains it
}
# Chosen with --try, which scores MLP, seed 100, on validation data only. Other values make other cells: they are part
# of the folders' names.
PRETRAINING = {"epochs": 60, "batch_size": 128, "learning_rate": 5e-3, "schedule": "linear"}
POSEAUG = {
    "epochs": 24, "batch_size": 128, "warmup": 4, "gan_share": 0.25,
    "learning_rate": 1e-4, "lifter_rate": 2e-3, "fake_share": 0.4,
}  # fmt: skip
ABLATIONS = {
    "no_angles": {"angles": False},
    "no_lengths": {"lengths": False},
    "no_transform": {"transform": False},
    "no_d3d": {"weight_3d": 0.0},
    "no_d2d": {"weight_2d": 0.0},
    "no_feedback": {"feedback": False},
    "no_penalty": {"gradient_penalty": 0.0},
    "no_average": {"ema": 0.0},
    "spectral": {"spectral": True},
    "no_spread": {"weight_spread": 0.0},
}
SEEDS, MANY = range(3), range(10)


def cells() -> list[tuple[str, str, int]]:
    """(recipe, lifter, seed) in order of importance."""
    wanted = [(recipe, "mlp", seed) for seed in SEEDS for recipe in ("baseline", "default")]
    wanted += [(recipe, name, seed) for name in LIFTERS[1:] for seed in SEEDS for recipe in ("baseline", "default")]
    wanted += [(recipe, "mlp", seed) for seed in MANY for recipe in ("default", "official")]
    wanted += [(recipe, "mlp", seed) for recipe in ABLATIONS for seed in SEEDS[:1]]
    return list(dict.fromkeys(wanted))


def chosen(name: str) -> str:
    """Short name of a lifter's settings."""
    return _short(json.dumps([PRETRAINING, POSEAUG, OPTIONS[name]], sort_keys=True))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def lifter_updates(settings: PoseAugSettings, count: int) -> int:
    """Lifter steps of PoseAug after its warm-up; fakes that the official recipe drops are not subtracted."""
    full, rest = divmod(count, settings.batch_size)
    return 2 * (full + (rest > 1)) * (settings.epochs - settings.warmup)


def pretrained(name: str, seed: int, sets: dict, work: Path) -> Path:
    """The common start of all recipes."""
    key = _short(json.dumps([PRETRAINING, OPTIONS[name]]))
    out = work / "pretraining" / f"{name}_{seed}_{key}"
    path = out / "lifter.safetensors"
    if not path.is_file():
        torch.manual_seed(seed)
        lifter = make_lifter(name, **OPTIONS[name])
        train_lifter(lifter, sets["train"], out, LifterSettings(**PRETRAINING), sets["validation"], seed, False)
    return path


def run_cell(
    recipe: str, name: str, seed: int, sets: dict, work: Path, changes: dict | None = None, label: str = ""
) -> dict:
    """Trains and scores one cell."""
    start = time.time()
    lifter = load_lifter(pretrained(name, seed, sets, work))
    tried = f"_{_short(json.dumps(changes, sort_keys=True))}" if changes else ""
    out = work / "runs" / f"{label or recipe}_{name}_{seed}_{chosen(name)}{tried}"
    options = {**POSEAUG, **ABLATIONS.get(recipe, {}), **(changes or {})}
    settings = PoseAugSettings(recipe="official" if recipe == "official" else "default", **options)
    if recipe == "baseline":
        per_epoch = lifter_updates(settings, len(sets["train"])) // (settings.epochs - settings.warmup)
        # One pass over the data is half of PoseAug's lifter steps of an epoch.
        epochs = 2 * (settings.epochs - settings.warmup)
        assert per_epoch * (settings.epochs - settings.warmup) == epochs * (per_epoch // 2)
        own = LifterSettings(
            epochs=epochs, batch_size=settings.batch_size, learning_rate=settings.lifter_rate, schedule="linear"
        )
        train_lifter(lifter, sets["train"], out, own, sets["validation"], seed, False)
    else:
        train_poseaug(lifter, sets["train"], out, settings, sets["validation"], seed, False)
    curves = (out / "curves.csv").read_text()
    row = {
        "settings": chosen(name), "recipe": recipe, "lifter": name, "seed": seed, "changes": changes or {},
        "seconds": time.time() - start,
        "updates": lifter_updates(settings, len(sets["train"])),
        **{which: score(lifter, sets[which]) for which in ("validation", "same", "cross")},
        **_collapse(curves, settings.warmup),
    }  # fmt: skip
    return row


def _collapse(curves: str, warmup: int) -> dict:
    lines = [line.split(",") for line in curves.splitlines()]
    if "gan/collapsed" not in lines[0]:
        return {}
    names = ("gan/collapsed", "gan/rescues", "gan/usable", "gan/variety", "gan/views")
    at = {name: lines[0].index(name) for name in names}
    rows = lines[1 + warmup :]
    values = {name: [float(row[column]) for row in rows if row[column]] for name, column in at.items()}
    values["gan/views"] = [value for value in values["gan/views"] if math.isfinite(value)]  # NaN without transform
    return {
        "collapsed_epochs": int(sum(values["gan/collapsed"])),
        "rescues": int(values["gan/rescues"][-1]) if rows else 0,
        "least_usable": min(values["gan/usable"], default=None),
        "least_variety": min(values["gan/variety"], default=None),
        "least_views": min(values["gan/views"], default=None),
    }


def table(rows: list[dict]) -> None:
    """Mean ± standard deviation over seeds."""
    names = ("mpjpe", "pa_mpjpe", "pck150", "auc")
    heads = "".join(f"{which + ' ' + name:>18}" for which in ("same", "cross") for name in names)
    print(f"{'lifter':<10}{'recipe':<14}{'seeds':>5}  {heads}")
    for lifter in LIFTERS:
        for recipe in ("baseline", "default", "official", *ABLATIONS):
            found = [row for row in rows if row["lifter"] == lifter and row["recipe"] == recipe]
            if not found:
                continue
            text = f"{lifter:<10}{recipe:<14}{len(found):>5}  "
            for which in ("same", "cross"):
                for name in names:
                    values = np.array([row[which][name] for row in found])
                    spread = values.std(ddof=1) if len(values) > 1 else 0.0
                    text += f"{values.mean():>11.2f} ±{spread:5.2f}"
            if "rescues" in found[0]:
                collapsed, rescues = (sum(row[key] for row in found) for key in ("collapsed_epochs", "rescues"))
                text += f"  collapsed epochs {collapsed}, rescues {rescues}"
            print(text)
    for lifter in LIFTERS:
        by = {(row["recipe"], row["seed"]): row for row in rows if row["lifter"] == lifter}
        seeds = [seed for seed in SEEDS if ("baseline", seed) in by and ("default", seed) in by]
        if seeds:
            for which in ("same", "cross"):
                gains = [1 - by["default", s][which]["mpjpe"] / by["baseline", s][which]["mpjpe"] for s in seeds]
                print(f"{lifter}: {which}-scenario MPJPE lower by {100 * np.mean(gains):.1f} % (per seed: "
                      + ", ".join(f"{100 * g:.1f}" for g in gains) + ")")  # fmt: skip


def _settings(path: Path) -> str:
    return json.loads(path.read_text())["settings"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", help="recipes")
    parser.add_argument("--lifters", nargs="*", default=LIFTERS)
    parser.add_argument("--seeds", nargs="*", type=int, default=MANY)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is done and stop")
    parser.add_argument("--try", dest="attempt", nargs=2, metavar=("NAME", "JSON"),
                        help="one MLP cell of seed 100 with changed settings, scored on validation only")  # fmt: skip
    options = parser.parse_args()
    folder = options.work / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    if not options.table:
        sets = scenarios(options.data, options.work / "pairs")
    if options.attempt:
        name, changes = options.attempt[0], json.loads(options.attempt[1])
        recipe = "baseline" if name.startswith("baseline") else "default"
        held = sets["validation"]
        halves = {"same": held[: len(held) // 2], "cross": held[len(held) // 2 :]}  # as poseaug_scenarios.py joins them
        row = run_cell(recipe, "mlp", 100, {**sets, **halves}, options.work, changes, name)
        print("on validation data:", name, json.dumps(row))
        return
    for recipe, name, seed in cells():
        path = folder / f"{recipe}_{name}_{seed}.json"
        asked = (not options.only or recipe in options.only) and name in options.lifters and seed in options.seeds
        if options.table or (path.is_file() and _settings(path) == chosen(name)) or not asked:
            continue
        row = run_cell(recipe, name, seed, sets, options.work)
        write_bytes(path, json.dumps(row, indent=1).encode())
        print(f"{recipe} {name} {seed}: cross {row['cross']['mpjpe']:.2f}, same {row['same']['mpjpe']:.2f} mm, "
              f"{row['seconds']:.0f} s", flush=True)  # fmt: skip
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    table([row for row in rows if row["settings"] == chosen(row["lifter"])])


if __name__ == "__main__":
    main()
