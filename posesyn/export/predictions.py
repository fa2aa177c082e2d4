"""What an estimator says about persons: a table that a spreadsheet opens, and arrays for programs.

``predictions.csv`` has one row per person:

* ``image``, ``person_id``: the picture (its file) and the person in it;
* ``detector``, ``score``: who found the person, and how sure it was (0 to 1); empty where people annotated;
* ``x0``, ``y0``, ``x1``, ``y1``: the box in pixels of the whole picture, the middle of the first pixel at 0;
* ``root_x_m``, ``root_y_m``, ``root_z_m``: where the pelvis is, metres, camera frame (x right, y down, z forward).

``predictions.npz`` holds the same persons in the same order. ``numpy.load(path)`` reads it, without pickle:

* ``person_ids``, ``images`` (N,) text;
* ``boxes_xyxy`` (N, 4) float32, pixels;
* ``detection_scores`` (N,) float32, NaN where people annotated;
* ``estimator``, ``skeleton`` text: who predicted, and the name of the joint set;
* ``joint_names`` (J,) text;
* ``joints_cam`` (N, J, 3) float32, metres, camera frame; absolute where the estimator places persons;
* ``keypoints_px`` (N, J, 2) float32, the joints in the picture;
* ``keypoint_scores`` (N, J) float32, how sure it is of each, where the estimator says so;
* ``intrinsics`` (N, 3, 3) float32, the camera of the whole picture that it assumes, where it says so;
* ``pose_rotmat``, ``betas``, ``transl_cam``: SMPL parameters as in :class:`posesyn.types.PoseBatch`, where it has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from posesyn import skeletons
from posesyn.errors import FileError, InputError
from posesyn.metrics.pose2d_error import root_of
from posesyn.storage.files import csv_bytes, write_bytes, write_npz
from posesyn.storage.reports import prediction_arrays
from posesyn.types import Person, PoseBatch

TABLE, ARRAYS = "predictions.csv", "predictions.npz"
COLUMNS = (
    *("image", "person_id", "detector", "score", "x0", "y0", "x1", "y1"),
    *("root_x_m", "root_y_m", "root_z_m"),
)


def save_predictions(
    folder: str | os.PathLike[str], persons: Sequence[Person], predictions: Sequence[PoseBatch], estimator: str = ""
) -> None:
    """Writes ``predictions.csv`` and ``predictions.npz``, as the head of this module describes them.

    Args:
        folder: Made if it is missing.
        persons: Whom.
        predictions: The estimator's answers, one or several batches, persons in the same order.
        estimator: Its name.

    Raises:
        InputError: Nobody, other persons in the predictions, or several joint sets.
        FileError: The folder cannot be written.

    Example:
        >>> import tempfile
        >>> image, box = ps.types.ArrayImage(np.zeros((48, 64, 3), np.uint8)), np.array([8, 4, 56, 44])
        >>> persons = [ps.Person("a#1", image, box, np.zeros((17, 2)), np.zeros(17), "coco17", image_id="a")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_predictions(folder, persons, [ps.load_estimator("hmr_small").predict(persons)], "hmr_small")
        ...     with np.load(f"{folder}/predictions.npz") as arrays:
        ...         shape = arrays["joints_cam"].shape
        >>> shape
        (1, 45, 3)
    """
    names = [person.person_id for person in persons]
    answered = [name for batch in predictions for name in batch.person_ids]
    kinds = sorted({batch.skeleton for batch in predictions})
    if not names or answered != names or len(kinds) != 1:
        raise InputError(
            "predictions must belong to the persons, in their order and in one joint set", where="save_predictions",
            expected=names[:3] or "at least one person", got=f"{answered[:3]}, skeletons {kinds}",
        )  # fmt: skip
    arrays = prediction_arrays(predictions)
    if all(batch.scores is not None for batch in predictions):
        arrays["keypoint_scores"] = np.concatenate([np.asarray(batch.scores, np.float32) for batch in predictions])
    joints = skeletons.get(kinds[0]).joints
    roots = arrays["joints_cam"][:, list(root_of(kinds[0], np.ones(len(joints), bool))[1])].mean(1)
    unsure = [np.nan if person.detection_score is None else person.detection_score for person in persons]
    arrays |= {
        "person_ids": np.array(names),
        "images": np.array([_image(person) for person in persons]),
        "boxes_xyxy": np.stack([person.body_box_xyxy for person in persons]),
        "detection_scores": np.array(unsure, np.float32),
        "estimator": np.array(estimator),
        "skeleton": np.array(kinds[0]),
        "joint_names": np.array(joints),
    }
    rows = [
        [
            _image(person),
            person.person_id,
            person.detected_by or "",
            "" if person.detection_score is None else f"{person.detection_score:.4f}",
            *(f"{value:.2f}" for value in person.body_box_xyxy),
            *(f"{value:.4f}" for value in root),
        ]
        for person, root in zip(persons, roots)
    ]
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError("could not make a folder", where=folder, got=error.strerror) from error
    write_npz(folder / ARRAYS, arrays)
    write_bytes(folder / TABLE, csv_bytes(COLUMNS, rows))


def _image(person: Person) -> str:
    return person.image_id or person.image.name
