"""Recordings for the rerun viewer: motions, clips and persons."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posesyn import skeletons
from posesyn.errors import FileError, InputError, MissingDependencyError, PosesynError
from posesyn.geometry.rotations import rotvec_to_matrix
from posesyn.report.animation import motion_joints
from posesyn.report.overlays import PREDICTION, TRUTH
from posesyn.synthesis.rendering.mesh.shading import VertexNormals
from posesyn.types import Motion, ScoredPerson

TIMELINE, RANKS = "time", "rank"


def save_rerun(
    path: str | PathLike[str], motions: Motion | Sequence[Motion], body: Any = None, *, surface: bool = True
) -> None:
    """Writes an ``.rrd`` file; open it with ``rerun FILE``.

    Every motion is an entity of its own with joints, bones, caption and, with ``surface``, the body's mesh, on one
    time line in seconds, in posesyn's world (y up).

    Args:
        path: The file, replaced if it exists.
        motions: One or several.
        body: The body to draw; None loads the free one.
        surface: Write the mesh too (about 15 kB a frame with the small body).

    Raises:
        MissingDependencyError: rerun-sdk is not installed.
        InputError: No motion. FileError: The folder does not exist.
    """
    motions = [motions] if isinstance(motions, Motion) else list(motions)
    if not motions:
        raise InputError("there is no motion to record", where="save_rerun")
    rr, recording = _recording(Path(path))
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Y_UP, static=True)
    if surface and body is None:
        from posesyn.body import load_body

        body = load_body("anny", size="small")
    for number, motion in enumerate(motions):
        _record(rr, recording, f"world/{number:03d}", motion, body if surface else None)
    recording.flush()


def _recording(path: Path) -> tuple[Any, Any]:
    """The module ``rerun``, and a recording that goes into a file."""
    if not path.parent.is_dir():
        raise FileError("the folder does not exist", where=path)
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingDependencyError("recordings need rerun", fix="pip install rerun-sdk") from error
    recording = rr.RecordingStream("posesyn")
    recording.save(str(path))
    return rr, recording


def _record(rr: Any, recording: Any, entity: str, motion: Motion, body: Any) -> None:
    joints = motion_joints(motion)
    normals_of = None if body is None else VertexNormals(body.faces, int(body.faces.max()) + 1)
    bones = np.array(skeletons.get("humanml3d22").bones)
    label = f"{motion.motion_id}: {motion.caption}" if motion.caption else motion.motion_id
    recording.log(f"{entity}/text", rr.TextDocument(label), static=True)
    for t in range(len(motion)):
        recording.set_time(TIMELINE, duration=t / motion.fps)
        recording.log(f"{entity}/joints", rr.Points3D(joints[t].astype(np.float32), radii=0.015))
        lines = joints[t][bones].astype(np.float32)
        recording.log(f"{entity}/bones", rr.LineStrips3D(lines, radii=0.006))
        if normals_of is not None:
            with torch.no_grad():
                pose = rotvec_to_matrix(torch.from_numpy(motion.pose_rotvec[t : t + 1]))
                transl = torch.from_numpy(motion.transl_world[t : t + 1])
                vertices = body(pose, torch.from_numpy(motion.betas)[None], transl).vertices.float()
            surface = {"vertex_positions": vertices[0].numpy(), "vertex_normals": normals_of(vertices)[0].numpy()}
            recording.log(f"{entity}/body", rr.Mesh3D(triangle_indices=body.faces, **surface))


def save_persons_rerun(path: str | PathLike[str], scored: Sequence[ScoredPerson]) -> None:
    """Writes an ``.rrd`` file with one step of the time line per person; open it with ``rerun FILE``.

    Args:
        path: The file, replaced if it exists.
        scored: Persons, e.g. ``report.challenging``. Images that cannot be read are left out, with a line of text.

    Raises:
        MissingDependencyError: rerun-sdk is not installed.
        InputError: No person. FileError: The folder does not exist.
    """
    if not scored:
        raise InputError("there is no person to record", where="save_persons_rerun")
    rr, recording = _recording(Path(path))
    recording.log("camera", rr.ViewCoordinates.RDF, static=True)
    for step, item in enumerate(scored):
        recording.set_time(RANKS, sequence=step)
        _record_person(rr, recording, item)
    recording.flush()


def _record_person(rr: Any, recording: Any, item: ScoredPerson) -> None:
    person, prediction = item.person, item.prediction
    text = f"{person.person_id}: error {item.error:.4g}. {' '.join(person.captions)}"
    try:
        recording.log("image", rr.Image(person.image.load()))
    except PosesynError as error:
        text += f"\nNo picture: {error}"
    recording.log("text", rr.TextDocument(text))
    box = person.body_box_xyxy.reshape(1, 4)
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
