"""Every estimator computes where its weights are: on a device that is not the CPU, and when its memory is full."""

import numpy as np
import pytest
import torch

from posesyn.body import load_body
from posesyn.data.batches import collate, training_sample
from posesyn.errors import InputError
from posesyn.estimators import CallableEstimator, load_estimator
from posesyn.estimators.adapters import EstimatorKeypointDetector
from posesyn.estimators.crowdnet.network import CrowdNet
from posesyn.estimators.hmr import HMR
from posesyn.estimators.hmr2.network import HMR2
from posesyn.estimators.hybrik.network import HybrIK
from posesyn.estimators.lifters import LifterEstimator, make_lifter
from posesyn.geometry.devices import device_of
from posesyn.interfaces import EstimatorSpec
from tests.spying_device import SPY, SpyingDevice, WrongDevice, is_spied

NETWORKS = ("hmr_small", "hmr2", "crowdnet", "hybrik")
WRAPPED = ("cam", "transl_cam", "keypoints_px")
LIFTERS = ("mlp", "videopose", "semgcn", "stgcn")


def _wrapped(answer: str) -> CallableEstimator:
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, images):
            mean = images.mean((1, 2, 3))[:, None, None] * self.scale
            joints = torch.arange(51, device=images.device).view(17, 3) / 51 + mean
            pose = torch.eye(3, device=images.device).expand(len(images), 24, 3, 3)
            extra = {
                "cam": torch.ones(len(images), 3, device=images.device),
                "transl_cam": joints.mean(1) + images.new_tensor([0, 0, 9.0]),
                "keypoints_px": joints[..., :2],
            }
            return {"joints": joints, answer: extra[answer], "pose_rotmat": pose}

    return CallableEstimator(Net(), EstimatorSpec("wrapped", skeleton="coco17"))


def _make(name: str):
    torch.manual_seed(0)
    body = load_body(size="small")  # its own, since it moves with the network
    if name in LIFTERS:
        # Dropout is drawn by another rule on the CPU than on other devices.
        return LifterEstimator(make_lifter(name, dropout=0.0))
    return {
        "hmr_small": lambda: HMR.small(body=body),
        "hmr2": lambda: HMR2(depth=1, body=body),
        "crowdnet": lambda: CrowdNet(body=body),
        "hybrik": lambda: HybrIK("resnet18", body=body),
        "cam": lambda: _wrapped("cam"),
        "transl_cam": lambda: _wrapped("transl_cam"),
        "keypoints_px": lambda: _wrapped("keypoints_px"),
    }[name]()


def _fields(batch) -> dict:
    names = ("joints_cam", "keypoints_px", "pose_rotmat", "betas", "transl_cam", "intrinsics")
    return {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}


@pytest.mark.parametrize("name", [*NETWORKS, *WRAPPED, *LIFTERS])
def test_predicts_on_a_device_as_on_the_cpu(name, labelled):
    chosen = labelled[:3]
    estimator = _make(name).eval()
    expected = _fields(estimator.predict(chosen))
    with SpyingDevice():
        estimator.to(SPY)
        assert device_of(estimator) == SPY
        found = _fields(estimator.predict(chosen))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        if name in ("crowdnet", "hybrik"):
            # A way of their own for the CPU sums in another order, which random weights enlarge for some joints.
            assert np.median(np.abs(found[key] - values) / (1 + np.abs(values))) < 1e-3, key
        else:
            np.testing.assert_array_equal(found[key], values, err_msg=key)


@pytest.mark.parametrize("name", [*NETWORKS, *LIFTERS])
def test_a_training_step_on_a_device_is_that_on_the_cpu(name, labelled):
    losses = []
    for device in ("cpu", SPY):
        with SpyingDevice():
            estimator = _make(name).to(device).train()
            samples = [training_sample(person, estimator.spec) for person in labelled[:2]]
            batch = {
                key: value.to(device) if isinstance(value, torch.Tensor) else value
                for key, value in collate(samples).items()
            }
            torch.manual_seed(0)
            optimiser = torch.optim.SGD(estimator.parameters(), lr=1e-3)
            total = sum(estimator.training_losses(batch).values())
            assert is_spied(total) == (device == SPY)
            total.backward()
            optimiser.step()
            losses.append(total.detach().cpu().numpy())
    assert losses[0] == losses[1] > 0


@pytest.mark.parametrize("name", ["hmr_small", "cam", "mlp"])
@pytest.mark.filterwarnings("ignore:the device's memory is full")
def test_a_full_device_predicts_in_smaller_batches(name, labelled, monkeypatch):
    estimator = _make(name)
    single = [_fields(estimator.predict([person])) for person in labelled]
    sizes, predict = [], type(estimator)._predict

    def fills(self, batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return predict(self, batch)

    monkeypatch.setattr(type(estimator), "_predict", fills)
    found = estimator.predict(labelled)
    assert found.person_ids == tuple(person.person_id for person in labelled)
    assert sizes == [4, 2, 2]
    for key, values in _fields(found).items():
        np.testing.assert_allclose(values, np.concatenate([part[key] for part in single]), rtol=1e-4, atol=1e-4)


def test_one_person_too_many_is_predicted_on_the_cpu(persons, monkeypatch):
    estimator = _make("hmr_small").eval()
    expected = estimator.predict(persons[:2])
    predict = type(estimator)._predict

    def fills(self, batch):
        if self.device == SPY:
            raise RuntimeError("MPS backend out of memory")
        return predict(self, batch)

    monkeypatch.setattr(type(estimator), "_predict", fills)
    with SpyingDevice(), pytest.warns(UserWarning, match="memory"):
        estimator.to(SPY)
        found = estimator.predict(persons[:2])
        assert estimator.device == SPY and device_of(estimator.body) == SPY
        # It can still be trained: inference mode has left nothing behind.
        sum((parameter**2).sum() for parameter in estimator.parameters()).backward()
    np.testing.assert_allclose(found.joints_cam, expected.joints_cam, rtol=1e-4, atol=1e-4)


def test_a_detector_made_of_an_estimator_runs_where_that_is(rng):
    images = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    boxes = np.array([[5, 5, 60, 60], [0, 0, 40, 60]], np.float32)
    estimator = _make("hmr_small")
    expected = EstimatorKeypointDetector(estimator).detect(images, boxes)
    with SpyingDevice():
        found = EstimatorKeypointDetector(estimator.to(SPY)).detect(images, boxes)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


def test_load_estimator_puts_the_network_on_the_device():
    assert device_of(load_estimator()) == device_of(load_estimator(device="auto"))
    with SpyingDevice():
        estimator = load_estimator(device=SPY)
        assert device_of(estimator) == device_of(estimator.body) == SPY
        assert all(is_spied(value) for value in (*estimator.parameters(), *estimator.buffers()))
    with pytest.raises(InputError, match="unknown device"):
        load_estimator(device="gpu")


def test_the_spy_finds_what_a_device_would_refuse():
    with SpyingDevice():
        here, there = torch.ones(3), torch.ones(3, device=SPY)
        assert there.device == SPY and (there * 2).device == SPY and there.cpu().device == torch.device("cpu")
        assert (there * torch.tensor(2.0))[torch.tensor([0, 2])].device == SPY
        assert torch.zeros_like(there).device == there.new_zeros(2).device == here.to(there).device == SPY
        assert here.to(SPY).device == SPY and here.device == torch.device("cpu")
        for wrong in (
            lambda: there + here,
            lambda: torch.cat((here, there)),
            lambda: here.matmul(there),
            lambda: torch.nn.functional.linear(there, torch.ones(2, 3)),
            lambda: there.numpy(),
            lambda: np.asarray(there),
            lambda: here[torch.tensor([1], device=SPY)] + there.sum().cpu() + there,
            lambda: there.index_add_(0, torch.tensor([0]), there[:1]),
            lambda: there.__setitem__(torch.tensor([0]), torch.ones(1)),
        ):
            with pytest.raises(WrongDevice):
                wrong()
