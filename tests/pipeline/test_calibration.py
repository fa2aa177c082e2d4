"""The clips that a filter's judge is calibrated with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.body.pose_library import shipped_library
from posesyn.errors import RunError
from posesyn.geometry.procrustes import similarity_align
from posesyn.pipeline.calibration import calibration_clips
from posesyn.synthesis.filtering.judges import label_problems
from posesyn.synthesis.rendering.renderer import AnimationRenderer

FRAMES = 4


def made(folder, **options):
    return calibration_clips(folder, (48, 64), **{"frames": FRAMES, "device": "cpu", "progress": False, **options})


def test_clips_are_seeded_and_go_on_where_they_stopped(tmp_path, monkeypatch):
    whole = made(tmp_path / "whole")
    assert len(whole) == FRAMES and whole[0].frames.shape == (1, 48, 64, 3)
    assert all(label_problems(clip) == [None] for clip in whole)
    render = AnimationRenderer.render_one
    drawn = []

    def dies_after_two(self, motion, *rest):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(motion.motion_id)
        return render(self, motion, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(AnimationRenderer, "render_one", dies_after_two)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "killed")
    again = made(tmp_path / "killed")
    assert [clip.frames.tobytes() for clip in again] == [clip.frames.tobytes() for clip in whole]
    other = made(tmp_path / "other", seed=1)
    assert all((a.frames != b.frames).any() for a, b in zip(whole, other))
    with pytest.raises(RunError, match="seed"):
        made(tmp_path / "whole", seed=1)


def test_the_poses_are_those_of_the_library(tmp_path):
    library = shipped_library().points[:, :22].double()
    for clip in made(tmp_path):
        pose = torch.from_numpy(clip.joints_cam[0, :22]).double().expand_as(library)
        off = (similarity_align(library, pose) - pose).norm(dim=-1).mean(-1)
        # Another body is posed here, so that nothing fits exactly.
        assert off.min() < 0.03 < np.median(off)
