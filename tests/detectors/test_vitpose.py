from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from posesyn.detectors import ViTPose, load_detector
from posesyn.errors import FileError, InputError, MissingDependencyError

BOXES = np.array([[10, 5, 60, 75], [30, 10, 90, 79], [0, 0, 99, 79]], np.float32)


def network(labels: int = 17):
    """Random weights, 64 x 48 pixels."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        out_features=["stage2"],
    )  # fmt: skip
    torch.manual_seed(0)
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=labels, scale_factor=4)
    processor = transformers.VitPoseImageProcessor(size={"height": 64, "width": 48})
    return transformers.VitPoseForPoseEstimation(config).eval(), processor


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 80, 100, 3), dtype=np.uint8)


def test_answers_are_those_of_transformers(images):
    model, processor = network()
    keypoints, scores = ViTPose(model, processor, batch_size=2).detect(images, BOXES)
    assert keypoints.shape == (3, 17, 2) and scores.shape == (3, 17) and ((scores >= 0) & (scores <= 1)).all()
    for row in range(3):
        x0, y0, x1, y1 = BOXES[row].tolist()
        boxes = [[[x0, y0, x1 - x0, y1 - y0]]]
        inputs = processor(images[row], boxes=boxes, return_tensors="pt")
        with torch.no_grad():
            expected = processor.post_process_pose_estimation(model(**inputs), boxes=boxes)[0][0]
        np.testing.assert_allclose(keypoints[row], expected["keypoints"], atol=1e-2)
        np.testing.assert_allclose(scores[row], expected["scores"].clip(0, 1), atol=1e-4)


def test_a_saved_model_loads(images, tmp_path):
    model, processor = network()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    detector = load_detector("vitpose", checkpoint=tmp_path, device="cpu")
    assert (detector.name, detector.family, detector.training) == ("vitpose", "vitpose", False)
    np.testing.assert_allclose(
        detector.detect(images, BOXES)[0], ViTPose(model, processor).detect(images, BOXES)[0], atol=1e-3
    )


def test_nothing_is_downloaded(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(FileError, match=r"[Pp]osesyn downloads nothing: get it with `hf download nobody/nothing`"):
        load_detector("vitpose", checkpoint="nobody/nothing")
    with pytest.raises(FileError, match=r"cannot be loaded.*hf download usyd-community"):
        load_detector("vitpose", checkpoint=tmp_path)


def test_other_keypoints_are_refused():
    with pytest.raises(InputError, match=r"expected 17 \(COCO\), got 21"):
        ViTPose(*network(labels=21))


def test_without_transformers_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r'[Pp]ip install "posesyn\[vitpose\]"'):
        load_detector("vitpose")
