import importlib.metadata
import sys

import numpy as np
import pytest
import torch

import posesyn
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.hybrik.network import HybrIK
from posesyn.estimators.registry import ESTIMATORS, SHIPPED_WEIGHTS
from posesyn.interfaces import EstimatorSpec, TargetEstimator
from posesyn.storage.checkpoints import load_metadata, save_weights
from posesyn.types import PoseBatch


class Foreign:
    spec = EstimatorSpec("foreign", skeleton="coco17")

    def predict(self, persons):
        joints = np.zeros((len(persons), 17, 3), np.float32)
        return PoseBatch(tuple(p.person_id for p in persons), "coco17", joints, joints[..., :2])


def make_foreign(checkpoint):
    return Foreign()


def make_broken(checkpoint):
    raise RuntimeError("no network")


def make_nonsense(checkpoint):
    return object()


@pytest.fixture
def announced(monkeypatch):
    group = ESTIMATORS.group
    points = [
        importlib.metadata.EntryPoint(name, f"{__name__}:make_{name}", group)
        for name in ("foreign", "broken", "nonsense")
    ]
    monkeypatch.setattr("posesyn.registry.entry_points", lambda group: [p for p in points if p.group == group])


def test_the_shipped_estimator_loads_and_predicts(persons):
    estimator = posesyn.load_estimator("hmr_small")
    assert isinstance(estimator, TargetEstimator)
    assert estimator.spec.name == "hmr_small"
    assert not estimator.training
    found = estimator.predict(persons)
    assert found.joints_cam.shape == (5, 45, 3)
    assert np.isfinite(found.joints_cam).all()


def test_the_shipped_weights_are_small_and_say_what_they_are():
    assert SHIPPED_WEIGHTS.stat().st_size < 15e6
    assert load_metadata(SHIPPED_WEIGHTS)["estimator"] == "hmr_small"


def test_unknown_name_lists_names_and_near_matches():
    with pytest.raises(InputError, match=r"unknown estimator 'hrm'.*hmr, hmr2, hmr_small.*[Dd]id you mean 'hmr'"):
        posesyn.load_estimator("hrm")


@pytest.mark.parametrize("name", ["hmr", "hmr2", "crowdnet", "hybrik"])
def test_published_networks_need_a_checkpoint(name):
    with pytest.raises(InputError, match=rf"'{name}' needs a checkpoint.*github\.com"):
        posesyn.load_estimator(name)


def test_a_published_network_loads_by_name(tmp_path, body):
    model = HybrIK("resnet18", body=body)
    torch.save(model.state_dict(), tmp_path / "official.pth")
    loaded = posesyn.load_estimator("hybrik", checkpoint=tmp_path / "official.pth")
    assert isinstance(loaded, HybrIK)
    assert not loaded.training
    assert torch.equal(loaded.decphi.weight, model.decphi.weight)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, small):
    save_weights(tmp_path / "small.safetensors", small.state_dict())
    with pytest.raises(CheckpointError, match="do not fit HMR"):
        posesyn.load_estimator("hmr", checkpoint=tmp_path / "small.safetensors")


def test_other_packages_announce_estimators(announced):
    assert ESTIMATORS.names() == [
        *("blazepose", "blazepose_heavy", "blazepose_lite", "broken", "crowdnet", "foreign", "hmr", "hmr2"),
        *("hmr_small", "hybrik", "mlp", "nonsense", "semgcn", "stgcn", "videopose"),
    ]
    assert posesyn.load_estimator("foreign").spec.name == "foreign"


def test_announced_estimators_that_fail_say_who_is_to_blame(announced):
    with pytest.raises(InputError, match="RuntimeError: no network"):
        posesyn.load_estimator("broken")
    with pytest.raises(InputError, match="is no TargetEstimator"):
        posesyn.load_estimator("nonsense")


def test_a_function_of_the_current_folder_is_an_estimator(tmp_path, monkeypatch):
    (tmp_path / "my_estimator_module.py").write_text(
        "from tests.estimators.test_registry import Foreign\n\n"
        "def make(checkpoint):\n    found = Foreign()\n    found.checkpoint = checkpoint\n    return found\n\n"
        "def nothing(checkpoint):\n    return None\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    inside = list(sys.path)
    found = posesyn.load_estimator("my_estimator_module:make", checkpoint="w.pt")
    assert found.spec.name == "foreign" and found.checkpoint == "w.pt"
    assert sys.path == inside, "the folder is on the path for the import only"
    with pytest.raises(InputError, match="is no TargetEstimator"):
        posesyn.load_estimator("my_estimator_module:nothing")
    with pytest.raises(InputError, match="has no attribute 'mak'"):
        posesyn.load_estimator("my_estimator_module:mak")
    with pytest.raises(InputError, match="No module named 'no_such_module'"):
        posesyn.load_estimator("no_such_module:make")


def test_an_estimator_is_registered_by_a_program(monkeypatch):
    monkeypatch.setattr(ESTIMATORS, "_things", dict(ESTIMATORS._things))
    ESTIMATORS.register("mine", make_foreign)
    assert posesyn.load_estimator("mine").spec.name == "foreign"
    with pytest.raises(InputError, match="exists"):
        ESTIMATORS.register("hmr", make_foreign)


def test_an_estimator_in_place_of_a_name_is_told_in_one_line():
    with pytest.raises(InputError, match=r"takes a name.*got Foreign"):
        posesyn.load_estimator(Foreign())
