from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import posesyn as ps
from posesyn.detectors import DETECTORS, CallableDetector, MoveNet, load_detector
from posesyn.errors import CheckpointError, FileError, InputError
from posesyn.types import ArrayImage, Person


def middle(images, boxes):
    return np.repeat((boxes[:, None, :2] + boxes[:, None, 2:]) / 2, 17, axis=1)


def test_names():
    assert ps.load_detector is load_detector
    assert {"movenet_lightning", "movenet_thunder", "blazepose", "blazepose_heavy", "vitpose"} <= set(DETECTORS)
    with pytest.raises(InputError, match=r"unknown detector 'movenet_thundr'.*[Dd]id you mean 'movenet_thunder'"):
        load_detector("movenet_thundr")
    with pytest.raises(InputError, match="needs no loading"):
        load_detector(CallableDetector(middle))
    with pytest.raises(InputError, match="unknown device"):
        load_detector("movenet_thunder", device="gpu")


def test_weights_that_were_not_fetched_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path))
    for name in ("movenet_thunder", "movenet_lightning"):
        with pytest.raises(FileError, match=f"posesyn assets fetch {name}"):
            load_detector(name)
    assert not list(tmp_path.iterdir())


def test_blazepose_is_a_detector_with_its_own_scores(tmp_path, monkeypatch, rng):
    from posesyn.estimators.blazepose.estimator import BlazePose
    from posesyn.storage.checkpoints import save_weights
    from posesyn.synthesis.filtering.clip_filter import ClipFilter

    torch.manual_seed(0)
    network = BlazePose("lite").eval()
    save_weights(tmp_path / "lite.safetensors", network.state_dict())
    detector = load_detector("blazepose_lite", tmp_path / "lite.safetensors", device="cpu")
    assert (detector.name, detector.family, detector.skeleton) == ("blazepose_lite", "blazepose", "coco17")
    images = rng.integers(0, 256, (2, 90, 120, 3), dtype=np.uint8)
    keypoints, scores = detector.detect(images, np.array([[10, 5, 60, 85], [40, 10, 119, 80]]))
    assert keypoints.shape == (2, 17, 2) and ((scores >= 0) & (scores <= 1)).all()
    person = Person("a", ArrayImage(images[0]), np.array([10, 5, 60, 85]), np.zeros((17, 2)), np.zeros(17), "coco17")
    sure = network.predict([person]).scores
    assert sure.shape == (1, 33) and ((sure > 0) & (sure < 1)).all()
    with pytest.raises(InputError, match=r"one network \(blazepose\)"):
        ClipFilter(detector, improves=BlazePose("heavy"))
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileError, match="posesyn assets fetch blazepose_heavy"):
        load_detector("blazepose_heavy")


def test_own_weights(tmp_path):
    from tests.detectors.test_movenet import official_file

    torch.manual_seed(0)
    network = MoveNet("lightning").network
    from posesyn.storage.checkpoints import save_weights

    save_weights(tmp_path / "mine.safetensors", official_file(network))
    detector = load_detector("movenet_lightning", tmp_path / "mine.safetensors", device="cpu")
    assert not detector.training and torch.equal(detector.network.last.weight, network.last.weight)
    with pytest.raises(CheckpointError, match="of another shape"):
        load_detector("movenet_thunder", tmp_path / "mine.safetensors")
    with pytest.raises(FileError):
        load_detector("movenet_thunder", tmp_path / "none.safetensors")


def test_registered_and_announced_and_own_functions(monkeypatch, tmp_path):
    monkeypatch.setattr(DETECTORS, "_things", dict(DETECTORS._things))
    DETECTORS.register("middle", lambda checkpoint: CallableDetector(middle))
    assert load_detector("middle").name == "middle"
    with pytest.raises(InputError, match="of this name exists"):
        DETECTORS.register("vitpose", lambda checkpoint: None)
    DETECTORS.register("nothing", lambda checkpoint: object())
    with pytest.raises(InputError, match=r"no KeypointDetector.*got object"):
        load_detector("nothing")
    DETECTORS.register("broken", lambda checkpoint: 1 / 0)
    with pytest.raises(InputError, match=r"'broken' could not be built.*ZeroDivisionError"):
        load_detector("broken")
    (tmp_path / "own_detectors.py").write_text(
        "import numpy as np\nfrom posesyn.detectors import CallableDetector\n"
        "def make(checkpoint):\n"
        "    return CallableDetector(lambda images, boxes: np.zeros((len(images), 17, 2)), name=str(checkpoint))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_detector("own_detectors:make", "file").name == "file"
    with pytest.raises(InputError, match="could not be built"):
        load_detector("own_detectors:made")


def test_listing_names_loads_no_torch():
    code = "import sys; from posesyn.detectors import DETECTORS; list(DETECTORS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
