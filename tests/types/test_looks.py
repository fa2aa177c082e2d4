"""Every public value shows itself in one short line, and can be compared and hashed."""

from __future__ import annotations

import dataclasses
import inspect
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import posesyn
from posesyn import ErrorExtractor, MotionSynthesizer, estimators, settings, skeletons, storage, types
from posesyn.body.files import read_free_body
from posesyn.body.model import ASSETS
from posesyn.data import CocoKeypoints, H36MSequence, MotionCaptions, RenderedClips
from posesyn.data.crops import crop_person, crop_persons
from posesyn.data.pose_pairs.h36m import h36m_camera
from posesyn.data.pose_pairs.pairs import PosePairs
from posesyn.estimators.lifters.keypoints import LiftedImage
from posesyn.report import RunSummary
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.images import ImageFile
from posesyn.synthesis import AnimationRenderer, ClipFilter
from posesyn.training import MixedPoseDataModule
from posesyn.types import BodyFit, BodyLabels, JointTruth, ViewRequest
from posesyn.types.looks import default_of
from tests.factories import (
    make_batch,
    make_clip,
    make_estimator,
    make_image,
    make_motion,
    make_person,
    make_prior,
    make_report,
    make_scored,
)
from tests.test_api_surface import PINNED

LONG = "a person walks " * 60


@pytest.fixture(scope="module")
def values(shared, tmp_path_factory):
    clips = [make_clip("c/" + "x" * 80, caption=LONG), make_clip("d")]
    folder = tmp_path_factory.mktemp("clips")
    with ClipWriter(folder, plan=[clip.clip_id for clip in clips], config={}) as writer:
        for clip in clips:
            writer.write(clip)
    store = storage.ClipStore(folder)
    labels = BodyLabels(np.zeros((24, 3, 3)), np.zeros(10), np.zeros(3), np.zeros((45, 3)), np.eye(3))
    truth = JointTruth(np.zeros((17, 3)), np.ones(17, bool), "h36m17", np.eye(3))
    fit = BodyFit(np.zeros((24, 3)), np.zeros(10), np.zeros(3))
    facts = {"occluded": np.zeros(17, bool), "intrinsics": np.eye(3), "sequence": LONG, "action": LONG, "frame": 3}
    person = make_person(
        "set/" + "y" * 200, captions=(LONG,) * 5, labels=labels, joints=truth, fit=fit,
        meta={str(i): LONG for i in range(50)}, image_width_height=(80, 60), track_id=LONG, image_id=LONG, **facts,
    )  # fmt: skip
    motion = make_motion(200, caption=LONG, view=ViewRequest(0.5), meta={"tokens": list(range(999))})
    coco = shared / "data" / "images" / "coco"
    persons = CocoKeypoints(coco / "annotations.json", coco)
    joints = np.random.default_rng(0).normal(0, 0.2, (9, 16, 3)).astype(np.float32)
    spec = posesyn.EstimatorSpec("tiny", input_size=(16, 16))
    return [
        person, make_batch(tuple(map(str, range(500)))), make_scored(), make_report(40), motion, clips[0], labels,
        truth, fit, make_image(), ImageFile(Path("z" * 200)), ViewRequest(1.0, 0.2), persons,
        store, store.frame(0, 0), store.header(0), RenderedClips(store), PosePairs(joints, joints[..., :2]),
        LiftedImage(joints, joints[..., :2], (80, 60)), AnimationRenderer(image_size=32).render([motion]),
        ClipFilter().filter(clips), crop_person(make_person(), spec), crop_persons([make_person()], spec), spec,
        skeletons.get("smpl45"), estimators.ESTIMATORS, *stages(), RunSummary("t" * 400, settings={"a": LONG}),
        MotionCaptions(shared / "data" / "cmu" / "captions.jsonl", "train"), read_free_body(ASSETS / "body_small.npz"),
        H36MSequence("S1", "A", "c", joints, joints, "poseaug16", h36m_camera("S1", "54138969")),
        posesyn.load_body(size="small")(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10)),
    ]  # fmt: skip


def stages():
    estimator = make_estimator()
    detector = estimators.EstimatorKeypointDetector(estimator)
    return [
        ErrorExtractor(estimator), ErrorExtractor(estimator, others=[estimator], num_challenging=3), detector,
        MotionSynthesizer(make_prior(), num_motions=2), AnimationRenderer(image_size=(32, 64), style="lab"),
        ClipFilter(estimator, quantile=0.9), ClipFilter(detector), ClipFilter(),
        MixedPoseDataModule([make_person()] * 9, [make_person()]),
    ]  # fmt: skip


def every_settings():
    needed = {"images": Path("i" * 300), "folder": Path("f" * 300), "format": "h36m", "path": "p" * 300}
    for kind in (getattr(settings, name) for name in settings.__all__):
        asked = [one.name for one in dataclasses.fields(kind) if default_of(one) is dataclasses.MISSING]
        yield kind(**{name: needed[name] for name in asked})


def test_every_value_fits_in_a_line(values):
    for value in [*values, *every_settings()]:
        text = repr(value)
        assert len(text) < 300 and "\n" not in text and " at 0x" not in text, text
        assert type(value).__name__ in text


def test_every_value_of_the_types_is_looked_at(values):
    seen = {type(value) for value in values}
    public = [getattr(types, name) for name in types.__all__]
    wanted = {kind for kind in public if inspect.isclass(kind) and dataclasses.is_dataclass(kind)}
    assert wanted <= seen


def test_comparing_and_hashing_work(values):
    for value in values:
        assert value == value and len({value, value}) == 1
        assert (value == make_person()) is False


def test_every_public_class_says_what_it_is(values):
    seen, wanted = {type(value) for value in values}, set()
    for module, names in json.loads(PINNED.read_text()).items():
        public = [getattr(import_module(module), name) for name in names]
        classes = {one for one in public if inspect.isclass(one) and not getattr(one, "_is_protocol", False)}
        # PyTorch shows a network as the tree of its layers.
        wanted |= {one for one in classes if not issubclass(one, torch.nn.Module | BaseException)}
    assert not [one.__name__ for one in wanted if one.__repr__ is object.__repr__]
    assert {ErrorExtractor, MotionSynthesizer, AnimationRenderer, ClipFilter, MixedPoseDataModule} <= seen & wanted


def test_stages_name_what_they_work_with_and_what_was_set():
    extractor, others, _, synthesizer, renderer, judged, *_ = map(repr, stages())
    assert extractor == "ErrorExtractor(estimator='tiny', device='cpu')"
    assert others == "ErrorExtractor(estimator='tiny', others='tiny', device='cpu', num_challenging=3)"
    assert synthesizer.startswith("MotionSynthesizer(prior='") and "num_motions=2" in synthesizer
    assert renderer.startswith("AnimationRenderer(image_size=(32, 64), style='lab', backend='MeshBackend'")
    assert judged == "ClipFilter(mode='estimator', judge='tiny', device='cpu', quantile=0.9, threshold=0.2)"
    spec = posesyn.EstimatorSpec("mine", mean=(0.5, 0.5, 0.5))
    assert repr(spec) == "EstimatorSpec(name='mine', input_size=(224, 224), skeleton='smpl45', mean=(0.5, 0.5, 0.5))"


def test_settings_show_what_differs_from_the_defaults():
    assert repr(settings.RunSettings()) == "RunSettings()"
    some = settings.RunSettings(rendering=settings.RenderingSettings(frames_per_motion=None, style="lab"), seed=3)
    assert repr(some) == "RunSettings(rendering=RenderingSettings(frames_per_motion=None, style='lab'), seed=3)"
    assert repr(settings.PriorSettings(speeds=(1.0,), codes=7)) == "PriorSettings(codes=7, speeds=(1.0,))"


def test_shapes_stand_for_numbers():
    assert repr(make_batch(("a", "b"))).startswith(
        "PoseBatch(person_ids=<2 items>, skeleton='smpl45', joints_cam=(2, 45, 3)"
    )
    assert repr(make_motion(7)).startswith("Motion(motion_id='mock/motion', pose_rotvec=(7, 24, 3)")
    assert "meta" not in repr(make_person()) and "head_size=12" in repr(make_person(head_size=12.0))
    assert len(skeletons.get("coco17")) == 17 and estimators is not None


def test_dataclasses_with_arrays_compare_by_identity():
    """The comparison that a dataclass is given raises where it meets arrays."""
    import ast

    wrong = []
    for path in Path(posesyn.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            for decorator in node.decorator_list:
                text = ast.unparse(decorator)
                fields = [ast.unparse(item.annotation) for item in node.body if isinstance(item, ast.AnnAssign)]
                arrays = any("np.ndarray" in one or one.split(" ")[0] in ("Tensor", "torch.Tensor") for one in fields)
                if text.startswith("dataclass") and arrays and "eq=False" not in text:
                    wrong.append(f"{path.name}: {node.name}")
    assert not wrong
