from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from posesyn.errors import InputError
from posesyn.synthesis.rendering import renderer as backends
from posesyn.synthesis.rendering.renderer import AnimationRenderer
from posesyn.types import ArrayImage, Motion, Person


def motion(name: str, frames: int = 4, **extra) -> Motion:
    pose = np.zeros((frames, 24, 3), np.float32)
    pose[:, 1, 0] = -np.linspace(0, 0.6, frames)
    return Motion(name, pose, np.zeros((frames, 3)), np.zeros(10), fps=20.0, **extra)


@pytest.fixture(scope="module")
def renderer():
    return AnimationRenderer(image_size=48)


def same(first, second) -> bool:
    names = ("frames", "mask", "depth", "visible", "keypoints_px", "joints_cam")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def test_a_clip_depends_on_seed_and_motion_only(renderer):
    motions = [motion("a"), motion("b"), motion("c")]
    together = renderer.render(motions, seed=1, progress=False).to_list()
    alone = AnimationRenderer(image_size=48).render(motions[1:2], seed=1, progress=False)[0]
    assert same(together[1], alone) and together[1].clip_id == alone.clip_id == "b/s1"
    assert not same(together[1], renderer.render(motions[1:2], seed=2, progress=False)[0])
    assert [clip.motion_id for clip in together] == ["a", "b", "c"]


def test_rendering_is_lazy_and_repeatable(renderer):
    calls = []
    counting = SimpleNamespace(
        render=lambda m, look, *, seed: calls.append(m.motion_id) or renderer.backend.render(m, look, seed=seed)
    )
    stream = AnimationRenderer(counting).render([motion("a"), motion("b")], progress=False)
    assert len(stream) == 2 and calls == []
    first = next(iter(stream))
    assert calls == ["a"]
    assert same(first, stream[0])
    assert len(list(stream)) == 2


def test_stride_keeps_the_anchor(renderer):
    long = motion("long", frames=11, anchor_frame=7)
    clip = renderer.render([long], frame_stride=3, progress=False)[0]
    assert len(clip) == 4 and clip.fps == pytest.approx(20 / 3)
    assert clip.meta["anchor_frame"] == 2
    np.testing.assert_allclose(clip.pose_rotvec[2, 1], long.pose_rotvec[7, 1])


def test_appearances_are_taken_from_persons(renderer, rng):
    pixels = np.full((200, 160, 3), 120, np.uint8)
    keypoints = np.tile(np.float32([80, 100]), (17, 1)) + rng.normal(0, 20, (17, 2)).astype(np.float32)
    person = Person(
        "coco/7", ArrayImage(pixels), np.array([30, 10, 130, 190.0]), keypoints, np.ones(17, bool), "coco17"
    )
    clip = renderer.render([motion("a")], appearances=[person], progress=False)[0]
    assert clip.meta["appearance"]["source"] == "coco/7"
    assert clip.meta["background"] == "person:coco/7"
    again = AnimationRenderer(image_size=48).render([motion("a")], appearances=[person], progress=False)[0]
    assert same(clip, again)
    small = replace(person, box_xyxy=np.array([0, 0, 9, 9.0]))
    assert renderer.render([motion("b")], appearances=[small], progress=False)[0].meta["appearance"]["notes"]


def test_other_backends_register_by_name(renderer):
    made = {}

    def factory(**settings):
        made.update(settings)
        return renderer.backend

    backends.register_backend("test-diffusion", factory)
    clip = AnimationRenderer("test-diffusion", image_size=(48, 48), steps=3).render([motion("a")], progress=False)[0]
    assert made["steps"] == 3 and made["image_size"] == (48, 48) and len(clip) == 4
    with pytest.raises(InputError, match="exists"):
        backends.register_backend("mesh", factory)


def test_bad_input_is_refused(renderer):
    with pytest.raises(InputError, match=r"unknown render backend.*mesh"):
        AnimationRenderer("nerf")
    with pytest.raises(InputError, match="render"):
        AnimationRenderer(backend=object())
    with pytest.raises(InputError, match="style"):
        AnimationRenderer(style="comic")
    with pytest.raises(InputError, match="differ"):
        renderer.render([motion("a"), motion("a")])
    with pytest.raises(InputError, match="frame_stride"):
        renderer.render([motion("a")], frame_stride=0)
    assert renderer.render([], progress=False).to_list() == []
