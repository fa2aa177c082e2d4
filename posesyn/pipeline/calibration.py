"""Pictures that a filter's judge is calibrated with: rendered for nothing else, with exact labels."""

from __future__ import annotations

from pathlib import Path

from posesyn.body import load_body
from posesyn.body.inverse_kinematics import fit_pose
from posesyn.body.pose_library import shipped_library
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.types import Motion

# Metres of the lowest joint above the floor, and deviation of the betas, that of rendered motions: our own choice.
SOLE_M, SHAPE_SPREAD = 0.02, 0.8


def calibration_clips(
    folder: Path,
    image_size: tuple[int, int],
    *,
    frames: int = 72,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> ClipStore:
    """Clips of poses out of the shipped library, which no motion of a run is; resumable.

    The library holds poses that are spread evenly over real mocap, so hard ones are as frequent as easy ones. Bodies,
    looks, rooms and cameras are drawn at random.

    Args:
        folder: Of the clip store; made if absent, continued if it holds the same clips.
        image_size: (height, width) in pixels, that of the clips that are filtered.
        frames: Pictures, each a clip of its own.
        seed: Decides poses, bodies, looks and cameras.
        device: Where they are rendered.

    Raises:
        RunError: The folder holds something else.
    """
    motions = {clip_id(motion.motion_id, seed): motion for motion in _motions(frames, seed)}
    config = {"kind": "calibration", "seed": seed, "frames": frames, "image_size": list(image_size)}
    with ClipWriter(folder, plan=list(motions), config=config) as writer:
        if pending := [motions[name] for name in writer.pending()]:
            renderer = AnimationRenderer("mesh", image_size=image_size, device=device)
            for clip in renderer.render(pending, seed=seed, progress=progress):
                writer.write(clip)
    return ClipStore(folder)


def _motions(count: int, seed: int) -> list[Motion]:
    """``count`` motions of one frame."""
    library, rng = shipped_library().points, rng_of(seed, "calibration/poses")
    rows = rng.choice(len(library), count, replace=count > len(library))
    joints = library[rows, :22].double().numpy()
    joints[..., 1] += SOLE_M - joints[..., 1].min(1, keepdims=True)
    # One after the other they are no motion: nothing is smoothed between them.
    fit = fit_pose(joints, load_body(size="small"), twist_smoothing=0)
    made = []
    for row in range(count):
        name = f"calibration/{row:04d}"
        betas = rng_of(seed, name).normal(0, SHAPE_SPREAD, 10)
        # As a clip of several poses, which one camera must hold, it would show people smaller than a motion does.
        made.append(Motion(name, fit.pose_rotvec[[row]], fit.transl[[row]], betas, fps=20.0))
    return made
