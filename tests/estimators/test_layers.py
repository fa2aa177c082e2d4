import numpy as np
import pytest
import timm
import torch
from torch import nn

from posesyn.estimators import layers as folded_resnet
from posesyn.estimators.layers import folded_forward, is_foldable


def trunk(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **options).eval().to(memory_format=torch.channels_last)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_the_network_as_written(name, one_pass, monkeypatch):
    if not one_pass:
        monkeypatch.setattr(folded_resnet, "_ONE_PASS", None)
    model = trunk(name, num_classes=0, global_pool="")
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert is_foldable(model)
        wanted = model(images)
        np.testing.assert_allclose(folded_forward(model, images), wanted, atol=1e-4, rtol=1e-4)


def test_new_weights_count_at_once():
    model = trunk("resnet18", num_classes=0, global_pool="")
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        before = folded_forward(model, images)
    model.layer4[1].bn2.bias.data += 1
    with torch.inference_mode():
        assert not torch.equal(folded_forward(model, images), before)


def test_only_where_nothing_is_lost():
    model = trunk("resnet18", features_only=True, out_indices=(4,))
    assert not is_foldable(model)  # gradients are on
    with torch.no_grad():
        assert is_foldable(model)
        assert not is_foldable(model.train())
        assert not is_foldable(trunk("seresnet18" if timm.is_model("seresnet18") else "resnetblur18"))
        assert not is_foldable(trunk("regnetx_002"))
