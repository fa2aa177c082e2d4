from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from posesyn.errors import InputError, PosesynError
from posesyn.estimators.hmr import HMR
from posesyn.interfaces import EstimatorSpec
from posesyn.training.estimators.mixed_data import MixedPoseDataModule
from posesyn.training.estimators.module import LEARNING_RATE, PoseEstimatorModule
from posesyn.types import Person, PoseBatch
from tests.factories import make_labelled


# A foreign estimator in under 20 lines, without inheritance.
class Foreign:
    spec = EstimatorSpec("foreign", input_size=(16, 16))

    def __init__(self):
        self.layer = nn.Linear(3, 45 * 2)

    def parameters(self):
        return self.layer.parameters()

    def predict(self, persons):
        joints = np.zeros((len(persons), 45, 3), np.float32)
        return PoseBatch(tuple(p.person_id for p in persons), "smpl45", joints, joints[..., :2])

    def training_losses(self, batch):
        keypoints = self.layer(batch["images"].mean((2, 3))).view(-1, 45, 2)
        return {"keypoints": ((keypoints - batch["keypoints_norm"]).abs() * batch["visible"][..., None]).mean()}


@pytest.fixture
def persons(body) -> list[Person]:
    one = make_labelled(body, box_xyxy=np.array([4, 4, 28, 28]))
    return [replace(one, person_id=f"p{i}") for i in range(6)]


def trainer(tmp_path, **options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
        **options,
    )


def test_a_foreign_estimator_is_trained_validated_and_restored(tmp_path, persons):
    torch.manual_seed(0)
    foreign = Foreign()
    module = PoseEstimatorModule(foreign, learning_rate=0.05)
    data = MixedPoseDataModule(persons, persons, batch_size=4, val=persons, augment=False)
    running = trainer(tmp_path, max_epochs=10)
    before = foreign.layer.weight.detach().clone()
    running.fit(module, data)
    assert not torch.equal(before, foreign.layer.weight)
    assert running.callback_metrics["train/loss"] == pytest.approx(float(running.callback_metrics["train/keypoints"]))
    # It predicts all joints in one point: the error is the mean distance to the pelvis.
    joints = persons[0].labels.joints_cam[:24]
    expected = np.linalg.norm(joints - joints[0], axis=-1).mean() * 1000
    assert float(running.callback_metrics["val/mpjpe_mm"]) == pytest.approx(expected, rel=1e-4)
    running.save_checkpoint(tmp_path / "end.ckpt")
    again = PoseEstimatorModule(Foreign())
    again.load_state_dict(torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"])
    assert torch.equal(again.estimator.layer.weight, foreign.layer.weight)


def test_batchnorm_statistics_stay_frozen(tmp_path, persons):
    model = HMR.small()
    statistics = model.backbone.stem.bn.running_mean.clone()
    data = MixedPoseDataModule(persons, None, 0.0, batch_size=3, val=persons)
    module = PoseEstimatorModule(model)
    trainer(tmp_path, max_epochs=2).fit(module, data)
    assert torch.equal(model.backbone.stem.bn.running_mean, statistics)
    module.train()
    assert model.training
    assert not model.backbone.stem.bn.training
    thawed = PoseEstimatorModule(model, freeze_batchnorm=False)
    trainer(tmp_path, max_epochs=1).fit(thawed, data)
    assert not torch.equal(model.backbone.stem.bn.running_mean, statistics)


def test_defaults_are_those_of_spin():
    optimizer = PoseEstimatorModule(Foreign()).configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == LEARNING_RATE == 5e-5
    assert optimizer.defaults["weight_decay"] == 0


def test_cosine_schedule_with_warmup(tmp_path, persons):
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = PoseEstimatorModule(Foreign(), learning_rate=1.0, schedule="cosine", warmup_steps=3)
    data = MixedPoseDataModule(persons, None, 0.0, batch_size=1)
    trainer(tmp_path, max_steps=12, callbacks=[Watch()]).fit(module, data)
    peak = int(np.argmax(rates))
    assert peak <= 3
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


def test_an_estimator_without_losses_is_refused():
    class Frozen:
        spec = EstimatorSpec("frozen")

        def predict(self, persons):
            raise AssertionError

    with pytest.raises(InputError, match=r"cannot be fine-tuned in estimator 'frozen'.*no training_losses, parameters"):
        PoseEstimatorModule(Frozen())
    foreign = Foreign()
    foreign.layer.requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameters"):
        PoseEstimatorModule(foreign)
    with pytest.raises(InputError, match="unknown schedule"):
        PoseEstimatorModule(Foreign(), schedule="linear")
    with pytest.raises(InputError, match="no published schedule in estimator 'foreign'"):
        PoseEstimatorModule(Foreign(), schedule="published")
    with pytest.raises(InputError, match="Pass learning_rate"):
        PoseEstimatorModule(Foreign(), None)


def test_an_estimator_may_bring_its_published_schedule(tmp_path, persons):
    class Published(Foreign):
        def published_optimizers(self, learning_rate=None):
            optimizer = torch.optim.AdamW(self.parameters(), 0.5 if learning_rate is None else learning_rate)
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], 0.1)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    running = trainer(tmp_path, max_epochs=2)
    module = PoseEstimatorModule(Published(), None, schedule="published")
    running.fit(module, MixedPoseDataModule(persons, None, 0.0, batch_size=3))
    assert running.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)
    own = PoseEstimatorModule(Published(), 0.2, schedule="published").configure_optimizers()
    assert own["optimizer"].defaults["lr"] == 0.2


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        (torch.zeros(()), InputError, "non-empty dict"),
        ({}, InputError, "non-empty dict"),
        ({"a": torch.zeros(3)}, InputError, "scalar"),
        ({"a": torch.tensor(1.0), "b": torch.tensor(float("nan"))}, PosesynError, r"not finite.*\['b'\]"),
    ],
)
def test_bad_losses_are_named(losses, error, message):
    foreign = Foreign()
    foreign.training_losses = lambda batch: losses
    with pytest.raises(error, match=message):
        PoseEstimatorModule(foreign).training_step({"images": torch.zeros(1)}, 0)


def test_parts_learn_at_rates_of_their_own():
    """An estimator's own factors times that of the trunk; the rest at the rate asked for."""

    class Parts(nn.Module):
        spec = EstimatorSpec("parts")
        heavy_parts = ("trunk",)
        part_rates: ClassVar = {"eyes": 10.0, "trunk.last": 3.0}

        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.ModuleDict({"first": nn.Linear(2, 2), "last": nn.Linear(2, 2)})
            self.eyes, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

        def predict(self, persons): ...

        def training_losses(self, batch): ...

    module = PoseEstimatorModule(Parts(), learning_rate=1e-3, trunk_rate=0.1)
    rates = {id(one): group["lr"] for group in module.configure_optimizers().param_groups for one in group["params"]}
    parts = module.estimator
    wanted = {parts.trunk["first"]: 1e-4, parts.trunk["last"]: 3e-4, parts.eyes: 1e-2, parts.head: 1e-3}
    for part, rate in wanted.items():
        assert all(rates[id(one)] == pytest.approx(rate) for one in part.parameters())
    plain = PoseEstimatorModule(Parts(), learning_rate=1e-3).configure_optimizers()
    assert len(plain.param_groups) == 3
