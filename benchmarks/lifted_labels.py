"""Whether the trust in lifted labels tells right poses from wrong ones, on mocap that nothing was trained on.

    python benchmarks/lifted_labels.py --data ../shared/data/cmu --cache runs/lifted [--split val] [--mistakes 2]

Mocap of held-out subjects is rendered (as in ``motion_vs_truth.py``); the 2D truth is COCO's 17 keypoints with an
annotator's noise; ``--mistakes`` limb keypoints of every second person are put anywhere in the box. Against the true
joints (22): PA-MPJPE, which looks at the pose alone, and MPJPE with the pelvis aligned, which also looks at where the
person faces. "all alike" is the mean over the persons, "by trust" the mean weighted with the trust, which is what a
training sees; the estimator's own prediction stands beside. Then the rank correlations of trust and error, and the
errors (PA-MPJPE and MPJPE) of five groups of persons in the order of their trust.

The constants of ``posesyn/data/persons/lifted.py`` were chosen on the validation subjects.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from motion_vs_truth import pa_mm, render_pool
from scipy.stats import spearmanr

from posesyn import skeletons
from posesyn.data.persons.lifted import BodyLabeller, lift
from posesyn.data.persons.rendered import RenderedClips
from posesyn.demo.run import as_2d_annotation
from posesyn.estimators import load_estimator
from posesyn.progress import progress_over
from posesyn.storage.seeds import rng_of
from posesyn.types import Person, batched

LIMBS = ("elbow", "wrist", "knee", "ankle")


def mistaken(person: Person, count: int, seed: int) -> Person:
    """The person with so many limb keypoints anywhere in its box."""
    names = skeletons.get(person.skeleton).joints
    limbs = [row for row, name in enumerate(names) if name.endswith(LIMBS)]
    rng, points = rng_of(seed, f"mistake/{person.person_id}"), person.keypoints_px.copy()
    for row in rng.choice(limbs, count, replace=False):
        points[row] = rng.uniform(person.box_xyxy[:2], person.box_xyxy[2:])
    return replace(person, keypoints_px=points)


def errors_mm(joints_cam: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """PA-MPJPE and pelvis-aligned MPJPE over 22 joints."""
    ours, true = joints_cam[:22] - joints_cam[0], truth[:22] - truth[0]
    return float(pa_mm(ours, true)), float(1000 * np.linalg.norm(ours - true, axis=-1).mean())


def measured(options: argparse.Namespace) -> tuple[np.ndarray, int]:
    """(N, 6): trust, both errors of the labels, both of the prediction, whether mistaken; and how many could not be."""
    labelled: Sequence[Person] = list(RenderedClips(render_pool(options)))
    persons = [as_2d_annotation(person, options.noise, options.seed) for person in labelled]
    wrong = set(range(0, len(persons), 2)) if options.mistakes else set()
    persons = [mistaken(p, options.mistakes, options.seed) if row in wrong else p for row, p in enumerate(persons)]
    estimator, labeller = load_estimator(options.estimator, device="cpu"), BodyLabeller()
    rows = []
    for places in progress_over(list(batched(range(len(persons)), 16)), "lift", "batch"):
        chunk = [persons[row] for row in places]
        predicted = skeletons.convert(estimator.predict(chunk).joints_cam, estimator.spec.skeleton, "smpl45")[0]
        for row, labels in lift(chunk, estimator, labeller).items():
            if isinstance(labels, str):
                continue
            truth = labelled[places[row]].labels
            assert truth is not None
            own, before = (errors_mm(np.array(j), truth.joints_cam) for j in (labels.joints_cam, predicted[row]))
            rows.append((labels.trust, *own, *before, places[row] in wrong))
    return np.array(rows, float), len(persons) - len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cmu"))
    parser.add_argument("--cache", type=Path, default=Path("runs/lifted_labels"), help="rendered clips")
    parser.add_argument("--estimator", default="hmr_small")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--clips", type=int, default=60, help="of 5 persons each")
    parser.add_argument("--noise", type=float, default=4.0, help="px of the 2D truth's joints, standard deviation")
    parser.add_argument("--mistakes", type=int, default=0, help="limb keypoints of every second person")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows, missed = measured(options)
    trust = rows[:, 0]
    print(
        f"{len(rows)} persons of {options.split} subjects, {missed} could not be lifted; mean trust {trust.mean():.2f}"
    )
    for number, name in enumerate(("PA-MPJPE", "MPJPE")):
        own, before = rows[:, 1 + number], rows[:, 3 + number]
        weighted = (trust * own).sum() / trust.sum()
        print(f"{name} mm: prediction {before.mean():.0f}, labels all alike {own.mean():.0f}, by trust {weighted:.0f}")
        print(f"  rank correlation of trust and error {spearmanr(trust, own)[0]:.2f}")
    for part in np.array_split(np.argsort(-trust, kind="stable"), 5):
        high, low, pa, mpjpe = trust[part[0]], trust[part[-1]], *rows[part, 1:3].mean(0)
        print(f"trust {high:.2f} to {low:.2f}: {pa:.0f} and {mpjpe:.0f} mm")
    if options.mistakes:
        groups = [rows[rows[:, 5] == flag] for flag in (0, 1)]
        print(
            "without and with mistakes: "
            + ", ".join(f"trust {g[:, 0].mean():.2f} ({g[:, 1].mean():.0f} mm)" for g in groups)
        )


if __name__ == "__main__":
    main()
