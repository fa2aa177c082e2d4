import pytest
import torch
from torch import nn

from posesyn.errors import InputError
from posesyn.estimators.losses import HMR2_RECIPE, HMR_RECIPE, HYBRIK_RECIPE, TrainingRecipe, trainable


def test_rates_fall_at_the_milestones():
    layer = nn.Linear(1, 1)
    made = TrainingRecipe("adam", 1.0, 8, epochs=4, milestones=(1, 3)).build([{"params": list(layer.parameters())}])
    rates = []
    for _ in range(4):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01])
    assert made["lr_scheduler"]["interval"] == "epoch"


def test_published_settings():
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}]
    hmr, hmr2 = (recipe.build(groups)["optimizer"] for recipe in (HMR_RECIPE, HMR2_RECIPE))
    assert type(hmr) is torch.optim.Adam
    assert hmr.defaults["lr"] == 5e-5
    assert type(hmr2) is torch.optim.AdamW
    assert (hmr2.defaults["lr"], hmr2.defaults["weight_decay"]) == (1e-5, 1e-4)
    assert HYBRIK_RECIPE.build(groups, learning_rate=2e-4)["optimizer"].defaults["lr"] == 2e-4


def test_groups_hold_every_trainable_parameter_once():
    network = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2), "prior": nn.Linear(2, 2)})
    network["prior"].requires_grad_(False)
    groups = trainable(network.named_parameters(), ["backbone."])
    assert [(group["name"], len(group["params"])) for group in groups] == [("backbone", 2), ("head", 2)]
    network.requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameters"):
        trainable(network.named_parameters(), ["backbone."])
