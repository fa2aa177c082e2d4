"""Official files: prefixes, ignored parts, configurations, and reports that name the key."""

import sys
import types

import pytest
import torch
from torch import nn

from posesyn.errors import CheckpointError, UnsafeFileError
from posesyn.estimators.weights import OfficialWeights


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def saved(path, weights, **others):
    torch.save({"state_dict": weights, **others}, path)
    return path


def test_prefix_and_ignored_parts_are_left_out(tmp_path, network):
    weights = {f"module.{name}": value + 1 for name, value in network.state_dict().items()}
    weights["module.smpl.v_template"] = torch.zeros(6890, 3)
    official = OfficialWeights.read(saved(tmp_path / "a.pt", weights), ["smpl."])
    assert official.prefix == "module."
    official.load_into(network)
    assert torch.equal(network[0].weight, weights["module.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("module.0.weight"), r"1 missing: module\.0\.weight$|1 missing: module\.0\.weight\."),
        (
            lambda w: w.update({"module.0.kernel": w.pop("module.0.weight")}),
            r"1 missing: module\.0\.weight; 1 unexpected: module\.0\.kernel",
        ),
        # A key that lost its prefix is a renamed key, too.
        (
            lambda w: w.update({"0.weight": w.pop("module.0.weight")}),
            r"1 missing: module\.0\.weight; 1 unexpected: 0\.weight",
        ),
        (
            lambda w: w.update({"module.0.weight": torch.zeros(3, 5)}),
            r"1 of another shape: module\.0\.weight \(3, 5\) instead of \(3, 2\)",
        ),
    ],
)
def test_faults_are_named_as_in_the_file(tmp_path, network, change, message):
    weights = {f"module.{name}": value for name, value in network.state_dict().items()}
    before = network[0].bias.detach().clone()
    weights["module.0.bias"] = before + 1
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        OfficialWeights.read(saved(tmp_path / "a.pt", weights)).load_into(network)
    assert torch.equal(network[0].bias, before)


@pytest.fixture
def config_class(monkeypatch):
    """A class as yacs has it, importable only while the file is written."""
    made = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    for name in ("yacs", "yacs.config"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["yacs.config"].CfgNode = made
    return made


def test_configurations_are_read_as_plain_data(tmp_path, network, config_class, monkeypatch):
    node = config_class({"MODEL": config_class({"DEPTH": 32})})
    node.__dict__["__immutable__"] = True
    path = saved(tmp_path / "a.ckpt", network.state_dict(), hyper_parameters={"cfg": node}, epoch=1)
    monkeypatch.delitem(sys.modules, "yacs.config")
    monkeypatch.delitem(sys.modules, "yacs")
    assert set(OfficialWeights.read(path).tensors) == set(network.state_dict())


class Run:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


def test_code_in_a_configuration_is_refused(tmp_path, network):
    path = saved(tmp_path / "a.ckpt", network.state_dict(), hyper_parameters={"cfg": Run()})
    with pytest.raises(UnsafeFileError, match="would run code"):
        OfficialWeights.read(path)


def test_assigned_weights_are_float32(tmp_path):
    with torch.device("meta"):
        network = nn.Linear(2, 3)
    weights = {"weight": torch.ones(3, 2).half(), "bias": torch.zeros(3)}
    OfficialWeights.read(saved(tmp_path / "a.pt", weights)).load_into(network, assign=True)
    assert network.weight.dtype == torch.float32
    assert network.weight.requires_grad
    assert network(torch.ones(1, 2)).tolist() == [[2, 2, 2]]
