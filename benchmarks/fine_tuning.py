"""What fine-tuning does to BlazePose lite: real photographs alone, or with clips of random, hardest or mixed persons.

    python benchmarks/fine_tuning.py --data ../shared/data --work runs/fine_tuning [--seeds 0 1 2] [--steps 400]
        [--arms control random hardest mixed] [--json fine_tuning.json]

Photographs 400 to 2,799 of ``lspet/train`` are mined and are the real part of every arm, with their 2D truth;
photographs 0 to 399 were used to choose the recipe. 240 persons, the hardest or random ones, get two motions of four
frames; ``mixed`` takes every second clip of both. All arms have the same start, steps, persons per step and recipe; the
control sees real persons in the place of the rendered ones.

Scored on data that nobody trained on or chose by: ``lspet/val`` (PCKh@0.6), renders of mocap of the test subjects, and
the multi-view photographs (MPJPE, PA-MPJPE over 12 limb joints, mm). Rows: one constant pose, aligned; the start; the
arms, mean over the training seeds. Below: differences to the start and to the control, per person averaged over the
seeds, with 95 % intervals that resample photographs, captures and moments.

Finished cells (arm, seed) are kept in ``--work``: started again, or in a second process, it goes on with the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from motion_vs_truth import constant_pose, pa_mm, render_pool
from real_people import multiview

from posesyn import load_estimator, skeletons
from posesyn.data.persons.lspet import LspExtended
from posesyn.data.persons.rendered import RenderedClips
from posesyn.evaluation.scoring import evaluate
from posesyn.interfaces import TargetEstimator
from posesyn.metrics.statistics import paired_difference
from posesyn.pipeline import stages
from posesyn.settings import ExtractionSettings, FineTuningSettings, RenderingSettings, SynthesisSettings
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.files import read_json, write_json
from posesyn.training.estimators.fine_tuning import fine_tune
from posesyn.types import Person

ARMS = ("control", "random", "hardest", "mixed")
RECIPE = FineTuningSettings(steps=400, batch_size=8, schedule="cosine", warmup_steps=20, retain=1.0)
VALIDATION, MINED, CHOSEN = range(400), range(400, 2800), 240
COLUMNS = ("PCKh@0.6", "mocap MPJPE", "mocap PA", "multi-view MPJPE", "multi-view PA")


class Part(Sequence):
    """Some persons of a data set."""

    def __init__(self, persons: Sequence[Person], rows: Sequence[int]) -> None:
        self.persons, self.rows = persons, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Person:
        return self.persons[self.rows[row]]


def lspet(data: Path, split: str) -> LspExtended:
    """Train or val."""
    return LspExtended(data / "lspet" / split / "joints.mat", data / "lspet" / split / "images")


def clips(options: argparse.Namespace, selection: str) -> ClipStore:
    """Clips of the hardest or of random persons; made once."""
    folder = options.work / selection
    if not (folder / "made.json").exists():
        persons = Part(lspet(options.data, "train"), MINED)
        picked: dict[str, Any] = {"num_challenging": CHOSEN, "num_non_challenging": 100, "selection": selection}
        estimator = load_estimator(options.estimator, device="cpu")
        report = stages.extract(persons, ExtractionSettings(**picked), folder / "extraction", estimator=estimator)
        motions = stages.synthesize(report, SynthesisSettings(num_motions=2), folder / "motions", device="cpu")
        drawn = RenderingSettings(frames_per_motion=4, backgrounds=options.data / "backgrounds")
        stages.render(motions, drawn, folder / "clips", appearances=report.non_challenging, device="cpu")
        write_json(folder / "made.json", {"motions": len(motions)})
    return ClipStore(folder / "clips")


def synthetic(options: argparse.Namespace, arm: str) -> list[RenderedClips] | None:
    """What an arm trains on beside the photographs."""
    if arm == "control":
        return None
    parts = {"random": ["random"], "hardest": ["rank"], "mixed": ["rank", "random"]}[arm]
    stores = [clips(options, part) for part in parts]
    return [RenderedClips([store[row] for row in range(0, len(store), len(stores))]) for store in stores]


def mocap(options: argparse.Namespace) -> list[Person]:
    """Renders of the test subjects."""
    pool = argparse.Namespace(data=options.data / "cmu", cache=options.work, split="test", clips=75, seed=7)
    return list(RenderedClips(render_pool(pool)))


def men(options: argparse.Namespace) -> list[Person]:
    """The multi-view photographs."""
    return multiview(options.data / "images" / "multiview_balance")


def scores(options: argparse.Namespace, estimator: TargetEstimator) -> dict[str, dict[str, list]]:
    """Column → values and groups, one per person."""
    found = {
        "real": evaluate(estimator, lspet(options.data, "val"), protocol="lspet-pckh12"),
        "mocap": evaluate(estimator, mocap(options), protocol="limbs12"),
        "multi-view": evaluate(estimator, men(options), protocol="limbs12"),
    }
    moments = [name.rsplit("_", 1)[1] for name in found["multi-view"].person_ids]
    groups = {"real": found["real"].person_ids, "mocap": found["mocap"].groups, "multi-view": moments}
    taken = [("real", "PCKh@0.6 [%]")]
    taken += [(name, f"{kind} [mm]") for name in ("mocap", "multi-view") for kind in ("MPJPE", "PA-MPJPE")]
    return {
        column: {"values": found[name].values[key].tolist(), "groups": list(groups[name])}
        for column, (name, key) in zip(COLUMNS, taken)
    }


def constant(options: argparse.Namespace) -> dict[str, float]:
    """PA-MPJPE of the mean pose of the library, aligned to each person."""
    pose, present = skeletons.convert(constant_pose(), "humanml3d22", "limbs12")
    bodies = [skeletons.convert(one.labels.joints_cam, "smpl45", "limbs12")[0] for one in mocap(options)]
    rows = {"mocap PA": bodies, "multi-view PA": [one.joints.joints_cam for one in men(options)]}
    return {
        name: float(np.mean([pa_mm(pose[present], np.asarray(true, float)[present]) for true in truth]))
        for name, truth in rows.items()
    }


def cell(options: argparse.Namespace, arm: str, seed: int) -> dict[str, dict[str, list]]:
    """One training, scored; kept."""
    path = options.work / "cells" / (f"{arm}_{seed}.json" if arm != "start" else "start.json")
    if not path.exists():
        estimator: Any = load_estimator(options.estimator, device="cpu")
        if arm != "start":
            settings = replace(RECIPE, steps=options.steps)
            real = Part(lspet(options.data, "train"), MINED)
            out = options.work / "trainings" / f"{arm}_{seed}"
            fine_tune(estimator, real, synthetic(options, arm), out, settings, seed=seed, name=f"{arm} {seed}")
            estimator.eval()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, scores(options, estimator))
    return read_json(path)


def mean_over(cells: Sequence[dict], column: str) -> np.ndarray:
    """(N,) values per person."""
    return np.mean([one[column]["values"] for one in cells], axis=0)


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--estimator", default="blazepose_lite")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    start = cell(options, "start", 0)
    cells = {arm: [] for arm in options.arms}
    for seed in options.seeds:
        for arm in options.arms:
            cells[arm].append(cell(options, arm, seed))
            print(arm, seed, {name: round(float(np.mean(cells[arm][-1][name]["values"])), 1) for name in COLUMNS})
    rows = {"start": {name: float(np.mean(start[name]["values"])) for name in COLUMNS}, "constant": constant(options)}
    for arm, found in cells.items():
        rows[arm] = {name: float(mean_over(found, name).mean()) for name in COLUMNS}
        by_seed = {name: [float(np.mean(one[name]["values"])) for one in found] for name in COLUMNS}
        rows[f"{arm}, by seed"] = by_seed
        for other, against in (("start", [start]), ("control", cells.get("control", []))):
            if against and arm != other:
                for name in COLUMNS:
                    groups = found[0][name]["groups"]
                    change = paired_difference(mean_over(against, name), mean_over(found, name), groups)
                    rows.setdefault(f"{arm} - {other}", {})[name] = [change.mean, change.low, change.high]
    for name, row in rows.items():
        print(f"{name:22s}", *(f"{column}: {_short(value)}" for column, value in row.items()), sep="  ")
    if options.json is not None:
        write_json(options.json, {"steps": options.steps, "seeds": options.seeds, "rows": rows})


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f"{one:.1f}" for one in value) + "]"
    return f"{value:.1f}"


if __name__ == "__main__":
    main()
