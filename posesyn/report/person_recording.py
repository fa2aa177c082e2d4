"""Scored persons as recordings of rerun (rerun.io): image, annotation, prediction and its 3D pose by rank."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.errors import FileError, InputError, MissingDependencyError, PosesynError
from posesyn.report.overlays import PREDICTION, TRUTH
from posesyn.types import ScoredPerson

TIMELINE = "rank"


def save_persons_rerun(path: str | PathLike[str], scored: Sequence[ScoredPerson]) -> None:
    """Writes an ``.rrd`` file with one step of the time line per person; open it with ``rerun FILE``.

    Args:
        path: The file, replaced if it exists.
        scored: Persons, e.g. ``report.challenging``. Images that cannot be read are left out, with a line of text.

    Raises:
        MissingDependencyError: rerun-sdk is not installed.
        InputError: No person. FileError: The folder does not exist.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingDependencyError("recordings need rerun", fix="pip install rerun-sdk") from error
    path = Path(path)
    if not scored:
        raise InputError("there is no person to record", where="save_persons_rerun")
    if not path.parent.is_dir():
        raise FileError("the folder does not exist", where=path)
    recording = rr.RecordingStream("posesyn")
    recording.save(str(path))
    recording.log("camera", rr.ViewCoordinates.RDF, static=True)
    for step, item in enumerate(scored):
        recording.set_time(TIMELINE, sequence=step)
        _record(rr, recording, item)
    recording.flush()


def _record(rr: Any, recording: Any, item: ScoredPerson) -> None:
    person, prediction = item.person, item.prediction
    text = f"{person.person_id}: error {item.error:.4g}. {' '.join(person.captions)}"
    try:
        recording.log("image", rr.Image(person.image.load()))
    except PosesynError as error:
        text += f"\nNo picture: {error}"
    recording.log("text", rr.TextDocument(text))
    box = person.box_xyxy.reshape(1, 4)
    recording.log("image/box", rr.Boxes2D(array=box, array_format=rr.Box2DFormat.XYXY))
    for name, points, seen, skeleton, color in (
        ("annotation", person.keypoints_px, person.visible, person.skeleton, TRUTH),
        ("prediction", prediction.keypoints_px[0], None, prediction.skeleton, PREDICTION),
    ):
        known = skeletons.get(skeleton)
        seen = np.isfinite(points).all(-1) if seen is None else seen
        lines = [points[[a, b]] for a, b in known.bones if seen[a] and seen[b]]
        recording.log(f"image/{name}/joints", rr.Points2D(points[seen], colors=color, radii=2))
        recording.log(f"image/{name}/bones", rr.LineStrips2D(lines, colors=color))
    known, joints = skeletons.get(prediction.skeleton), prediction.joints_cam[0]
    recording.log("camera/joints", rr.Points3D(joints, colors=PREDICTION, radii=0.015))
    recording.log("camera/bones", rr.LineStrips3D([joints[[a, b]] for a, b in known.bones], colors=PREDICTION))
