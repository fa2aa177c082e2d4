"""How well each ranking finds the persons whose pose is wrong in 3D, on mocap that nothing was trained on.

    python benchmarks/ranking.py --data ../shared/data/cmu --cache runs/ranking [--estimator hmr_small] [--seeds 0 1 2]

Mocap of the test subjects is rendered (as in ``motion_vs_truth.py``); the 2D truth is COCO's 17 keypoints with an
annotator's noise. Columns: rank correlation with the true PA-MPJPE over 22 joints, and the share of the true worst
tenth among the worst tenth of the ranking. A random ranking finds a tenth (the baseline). One line per ranking, mean
and smallest to largest over the seeds, each with a pool, bodies, looks and noise of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from motion_vs_truth import pa_mm, render_pool
from scipy.stats import spearmanr

from posesyn import skeletons
from posesyn.data.persons.rendered import RenderedClips
from posesyn.demo.run import as_2d_annotation
from posesyn.estimators import load_estimator
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.extraction.extractor import ErrorExtractor


def measured(options: argparse.Namespace, seed: int) -> dict[str, tuple[float, float]]:
    """Ranking → (rank correlation, share of the worst tenth that is found)."""
    folder = options.cache / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pool = argparse.Namespace(data=options.data, cache=folder, split=options.split, clips=options.clips, seed=seed)
    labelled = list(RenderedClips(render_pool(pool)))
    persons = [as_2d_annotation(person, options.noise, seed) for person in labelled]
    truth = {person.person_id: person.labels.joints_cam[:22] for person in labelled}
    estimator = load_estimator(options.estimator, device="cpu")
    counts = {"num_challenging": len(persons) // 10, "num_non_challenging": 1}
    found = ErrorExtractor(estimator, rank_by="lifted", min_joints=2, **counts).extract(persons)
    true = []
    for item in found.scored:
        pose = item.prediction
        points, present = skeletons.convert(pose.joints_cam[0], pose.skeleton, "humanml3d22")
        true.append(float(pa_mm(points[present], truth[item.person.person_id][present])))
    names = [item.person.person_id for item in found.scored]
    by_mean = ErrorExtractor(estimator, reduce="mean", min_joints=2, **counts).extract(persons, progress=False)
    mean = {item.person.person_id: item.error for item in by_mean.scored}
    scores = {
        "random": [rng_of(seed, name).random() for name in names],
        "error, mean over joints": [mean[name] for name in names],
        "error, sum over joints (paper)": [item.error for item in found.scored],
        "lifted 2D truth": [item.lifted_mm for item in found.scored],
    }
    count = round(len(true) / 10)
    worst = set(np.argsort(true)[-count:])
    rows = {}
    for name, values in scores.items():
        hit = len(worst & set(np.argsort(values)[-count:])) / count
        rows[name] = float(spearmanr(values, true)[0]), hit
    print(f"seed {seed}: {len(true)} persons, {len(found.skipped)} could not be ranked", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument("--cache", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--json", default="ranking.json")
    parser.add_argument("--estimator", default="hmr_small")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--clips", type=int, default=80, help="of 5 persons each")
    parser.add_argument("--noise", type=float, default=4.0, help="px")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {seed: measured(options, seed) for seed in options.seeds}
    rows = []
    print(f"{'ranking':<32} | rank correlation     | worst tenth found")
    for name in next(iter(found.values())):
        values = np.array([one[name] for one in found.values()])
        cells = [f"{v.mean():5.2f} ({v.min():.2f} to {v.max():.2f})" for v in values.T]
        print(f"{name:<32} | {cells[0]:<20} | {cells[1]}")
        rows.append({"ranking": name, "spearman": values[:, 0].tolist(), "worst_tenth": values[:, 1].tolist()})
    settings = {name: str(value) for name, value in vars(options).items()}
    Path(options.json).write_text(json.dumps(replace_paths(settings) | {"rows": rows}, indent=1))


def replace_paths(settings: dict[str, str]) -> dict[str, str]:
    """Without where files lie, which says nothing about the figures."""
    return {name: value for name, value in settings.items() if name not in ("data", "cache", "json")}


if __name__ == "__main__":
    main()
