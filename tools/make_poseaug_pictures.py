"""Makes docs/images/poseaug_*.png, the pictures of docs/howto/poseaug.md, from a work folder of the benchmark.

    python tools/make_poseaug_pictures.py WORK --baseline WORK/runs/... --poseaug WORK/runs/...

Stick figures of CMU mocap poses and curves of our own trainings; the pictures are under the project's licence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from poseaug_scenarios import scenarios

from posesyn.report import augmentation_figure, learning_curves
from posesyn.synthesis.augmentation.augmentor import Augmentor

# Walking, reaching and bending people of the train set, by eye.
ROWS = (310, 5200, 9100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--baseline", type=Path, required=True)
    parser.add_argument("--poseaug", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    poses = scenarios(args.data, args.work / "pairs")["train"].joints_cam
    figures = {
        "poseaug_poses": augmentation_figure(
            Augmentor.load(args.poseaug / "augmentor.safetensors"), np.asarray(poses)[list(ROWS)]
        ),
        "poseaug_curves": learning_curves({"baseline": args.baseline, "PoseAug": args.poseaug}),
    }
    for name, figure in figures.items():
        FigureCanvasAgg(figure)
        figure.savefig(args.out / f"{name}.png", dpi=75)


if __name__ == "__main__":
    main()
