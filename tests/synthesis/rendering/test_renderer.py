from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from posesyn.body import load_body
from posesyn.errors import InputError, RunError
from posesyn.pipeline import stages
from posesyn.settings.stages import RenderingSettings
from posesyn.storage.seeds import rng_of
from posesyn.synthesis.rendering.mesh.backend import MeshBackend
from posesyn.synthesis.rendering.renderer import BACKENDS, AnimationRenderer
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


def test_other_backends_register_by_name(renderer, monkeypatch):
    monkeypatch.setattr(BACKENDS, "_things", dict(BACKENDS._things))  # what is registered here stays here
    made = {}

    def factory(**settings):
        made.update(settings)
        return renderer.backend

    BACKENDS.register("test-diffusion", factory)
    clip = AnimationRenderer("test-diffusion", image_size=(48, 48), steps=3).render([motion("a")], progress=False)[0]
    assert made["steps"] == 3 and made["image_size"] == (48, 48) and len(clip) == 4
    with pytest.raises(InputError, match="exists"):
        BACKENDS.register("mesh", factory)


def test_bad_input_is_refused(renderer):
    with pytest.raises(InputError, match=r"unknown render backend.*mesh"):
        AnimationRenderer("nerf")
    with pytest.raises(InputError, match="render"):
        AnimationRenderer(backend=object())
    with pytest.raises(InputError, match="style"):
        AnimationRenderer(style="comic")
    with pytest.raises(InputError, match=r"no 'imagesize'.*[Dd]id you mean image_size"):
        AnimationRenderer(imagesize=64)
    with pytest.raises(InputError, match="no 'camera'"):
        AnimationRenderer(renderer.backend, camera="fixed")
    with pytest.raises(InputError, match="no such device"):
        AnimationRenderer(device="cuda:99")
    with pytest.raises(InputError, match="must be RenderingSettings"):
        AnimationRenderer("mesh", 64)
    with pytest.raises(InputError, match="differ"):
        renderer.render([motion("a"), motion("a")])
    with pytest.raises(InputError, match="frame_stride"):
        renderer.render([motion("a")], frame_stride=0)
    assert renderer.render([], progress=False).to_list() == []


def test_settings_and_single_changes_are_one():
    settings = RenderingSettings(image_size=32, style="lab", shape_spread=0.5)
    whole = AnimationRenderer(settings=settings)
    single = AnimationRenderer("mesh", image_size=32, style="lab", shape_spread=0.5)
    assert whole.settings == single.settings == settings and whole.image_size == (32, 32)
    clips = [one.render([motion("a")], progress=False)[0] for one in (whole, single)]
    assert same(*clips)
    wide = AnimationRenderer(None, settings, image_size=(32, 48), camera="fixed", supersample=2)
    assert wide.image_size == (32, 48) and wide.settings.style == "lab"
    assert (wide.backend.camera_mode, wide.backend.supersample) == ("fixed", 2)
    assert wide.render([motion("a")], progress=False)[0].frames.shape == (4, 32, 48, 3)


def test_identity_tells_renderers_apart_by_what_decides_their_pictures(tmp_path):
    """A resumed run compares it; earlier folders, of settings alone, go on: nothing is added for these."""
    settings = RenderingSettings(image_size=32, style="lab")
    plain = AnimationRenderer(settings=settings).identity()
    assert plain == {"image_size": 32, "style": "lab"} and AnimationRenderer(image_size=(256, 256)).identity() == {}
    others = [
        AnimationRenderer(settings=settings, camera="fixed"),
        AnimationRenderer(settings=settings, supersample=2),
        AnimationRenderer(settings=settings, image_size=(32, 48)),
        AnimationRenderer(settings=settings, image_size=(48, 32)),
        AnimationRenderer(settings=settings, body=load_body(size="full")),
        AnimationRenderer(SimpleNamespace(render=print), settings),
        AnimationRenderer(MeshBackend((32, 32), style="wild"), settings),
        AnimationRenderer(MeshBackend((16, 16), style="lab", camera="fixed"), settings),
    ]
    stated = [json.dumps(one.identity(), sort_keys=True) for one in others]
    assert len({json.dumps(plain, sort_keys=True), *stated}) == 1 + len(others)
    assert others[0].identity()["backend_options"] == {"camera": "fixed"}
    # What changes no byte, and an object that draws what the settings ask for, are no difference.
    assert AnimationRenderer(settings=settings, frames_per_pass=2, device="cpu").identity() == plain
    assert AnimationRenderer(MeshBackend((32, 32), style="lab"), settings).identity() == plain
    stages.render([motion("a", 2)], settings, tmp_path, progress=False)
    with pytest.raises(RunError, match=r"rendering\.backend_options.*fixed"):
        stages.render([motion("a", 2)], settings, tmp_path, renderer=others[0], progress=False)


def test_a_backend_without_identity_is_told_apart_by_its_options(renderer, monkeypatch):
    monkeypatch.setattr(BACKENDS, "_things", dict(BACKENDS._things))
    BACKENDS.register("test-plain", lambda **options: SimpleNamespace(render=renderer.backend.render))
    few, many = (AnimationRenderer("test-plain", steps=steps, scheduler=print).identity() for steps in (3, 4))
    assert few == {
        "backend": "test-plain",
        "backend_options": {"steps": 3, "scheduler": "builtins.builtin_function_or_method"},
    }
    assert many["backend_options"]["steps"] == 4


@pytest.mark.parametrize(
    ("length", "anchor", "frames", "stride", "expected"),
    [
        (50, 25, 7, 8, [1, 9, 17, 25, 33, 41, 49]),
        (50, 3, 3, 8, [3, 11, 19]),
        (50, 49, 3, 8, [33, 41, 49]),
        (10, None, 2, 3, [2, 5]),
        (10, 4, None, 2, [0, 2, 4, 6, 8]),
        (5, 2, 7, 1, [0, 1, 2, 3, 4]),
    ],
)
def test_prepare_takes_frames_around_the_anchor(length, anchor, frames, stride, expected):
    renderer = AnimationRenderer(image_size=16, frames_per_motion=frames, frame_stride=stride)
    long = motion("long", frames=length, anchor_frame=anchor)
    some = renderer.prepare(long, seed=4)
    np.testing.assert_array_equal(some.pose_rotvec, long.pose_rotvec[expected])
    assert some.fps == long.fps / stride
    np.testing.assert_array_equal(some.betas, rng_of(4, "long").normal(0, 0.8, 10).astype(np.float32))
    assert some.joints_world is None


@pytest.mark.parametrize(
    ("speed", "bound", "frames", "stride"),
    [(0.0, 0.04, 7, 3), (0.0055, 0.04, 7, 2), (0.1, 0.04, 7, 1), (0.1, None, 7, 3), (0.1, 0.04, None, 3)],
)
def test_frames_of_a_fast_motion_are_drawn_closer_together(speed, bound, frames, stride):
    joints = np.random.default_rng(0).normal(size=(22, 3)).repeat(40, 0).reshape(22, 40, 3).swapaxes(0, 1)
    # Alternate joints move to and fro: no similarity undoes that.
    joints = joints + speed * (np.arange(40) - 20)[:, None, None] * (-1) ** np.arange(22)[:, None]
    one = replace(motion("fast", frames=40, anchor_frame=20), joints_world=joints)
    renderer = AnimationRenderer(image_size=16, frames_per_motion=frames, frame_stride=3, max_drift=bound)
    some = renderer.prepare(one)
    assert some.fps == one.fps / stride and np.array_equal(some.pose_rotvec[some.anchor_frame], one.pose_rotvec[20])


def test_prepare_leaves_the_body_without_a_spread():
    own = replace(motion("own"), betas=np.linspace(-1, 1, 10))
    some = AnimationRenderer(image_size=16, shape_spread=0.0).prepare(own)
    np.testing.assert_array_equal(some.betas, own.betas)
