"""The recipes of docs/howto/train_estimators.md, two steps each."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from posesyn.estimators.crowdnet.network import CrowdNet
from posesyn.estimators.hybrik.network import HybrIK
from posesyn.training.estimators.mixed_data import MixedPoseDataModule
from posesyn.training.estimators.module import PoseEstimatorModule


@pytest.mark.integration
@pytest.mark.parametrize("name", ["crowdnet", "hybrik"])
def test_trains_from_scratch_with_its_published_schedule_and_predicts_between(name, body, labelled, tmp_path):
    torch.manual_seed(0)
    network = CrowdNet(prior="trained", body=body) if name == "crowdnet" else HybrIK("resnet18", body=body)
    network.predict(labelled[:1])  # inference mode must leave nothing behind that training trips over
    before = {key: value.clone() for key, value in network.state_dict().items()}
    module = PoseEstimatorModule(network, None, schedule="published", freeze_batchnorm=False)
    data = MixedPoseDataModule(None, labelled, 1.0, batch_size=2, val=labelled[:2], steps_per_epoch=2)
    running = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    running.fit(module, data)
    assert np.isfinite(float(running.callback_metrics["train/loss"]))
    assert np.isfinite(float(running.callback_metrics["val/pa_mpjpe_mm"]))
    after = network.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    frozen = {key for key in before if "bodyprior_enc" in key}
    assert not moved & frozen
    assert {key for key, _ in network.named_parameters() if key.startswith(("backbone", "preact"))} <= moved
