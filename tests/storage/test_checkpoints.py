from __future__ import annotations

import os
import pickle
import struct
import zipfile

import pytest
import torch

from posesyn.errors import CheckpointError, FileError, UnsafeFileError
from posesyn.storage.checkpoints import fingerprint, load_into, load_metadata, load_weights, save_weights


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_safetensors_round_trip_with_metadata(tmp_path, network):
    save_weights(tmp_path / "a.safetensors", network.state_dict(), {"mean": [0.1, 0.2], "name": "ü", "n": 3})
    assert equal(load_weights(tmp_path / "a.safetensors"), network.state_dict())
    assert load_metadata(tmp_path / "a.safetensors") == {"mean": [0.1, 0.2], "name": "ü", "n": 3}
    # The content decides, not the name.
    os.rename(tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert equal(load_weights(tmp_path / "b.pt"), network.state_dict())


def test_shared_and_transposed_tensors_are_saved(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "a.safetensors", {"a": weight, "b": weight, "c": weight.T})
    loaded = load_weights(tmp_path / "a.safetensors")
    assert torch.equal(loaded["b"], weight) and torch.equal(loaded["c"], weight.T)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "network", "net"])
def test_torch_files_bare_and_wrapped(tmp_path, network, wrapper):
    state = network.state_dict()
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.pt")
    assert equal(load_weights(tmp_path / "a.pt"), state)


def test_legacy_torch_format(tmp_path, network):
    torch.save({"model": network.state_dict()}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert equal(load_weights(tmp_path / "a.pt"), network.state_dict())


def test_key_chooses_and_several_models_ask_for_it(tmp_path, network):
    torch.save({"net": network.state_dict(), "trans": {"x": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"several models.*key="):
        load_weights(tmp_path / "a.pt")
    assert equal(load_weights(tmp_path / "a.pt", key="trans"), {"x": torch.ones(1)})
    with pytest.raises(CheckpointError, match="no entry 'ema'"):
        load_weights(tmp_path / "a.pt", key="ema")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_runs_nothing(tmp_path, zipped):
    sentinel = tmp_path / "ran"
    torch.save({"state_dict": Evil(sentinel)}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match="would run code"):
        load_weights(tmp_path / "a.ckpt")
    assert not sentinel.exists()


def test_a_malicious_bare_pickle_runs_nothing(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(FileError):
        load_weights(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_safetensors_with_a_huge_header(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(FileError, match="damaged"):
        load_weights(tmp_path / "a.safetensors")


def test_damaged_empty_foreign_and_missing(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "zip.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", "x" * 100)
    for name, content in (("empty.pt", b""), ("text.pt", b"hello"), ("cut.pt", data[: len(data) // 2])):
        (tmp_path / name).write_bytes(content)
    for name in ("empty.pt", "text.pt", "cut.pt", "zip.pt", "absent.pt"):
        with pytest.raises(FileError, match=name):
            load_weights(tmp_path / name)
    with pytest.raises(UnsafeFileError, match="too large"):
        load_weights(tmp_path / "whole.pt", max_bytes=10)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, {}])
def test_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        load_weights(tmp_path / "a.pt")


def test_load_into_names_every_misfit_and_copies_nothing(network):
    weights = {name: value + 1 for name, value in network.state_dict().items()}
    del weights["0.bias"]
    weights["0.weight"] = torch.zeros(4, 7)
    weights["head.weight"] = torch.zeros(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(network, weights, where="a.pt")
    message = str(caught.value)
    for part in ("a.pt", "missing: 0.bias", "unexpected: head.weight", "0.weight (4, 7) instead of (4, 3)"):
        assert part in message
    assert equal(network.state_dict(), before)


def test_load_into_renames_drops_and_allows_optional(network):
    weights = {f"module.{name}": value + 1 for name, value in network.state_dict().items() if name != "0.bias"}
    weights["smpl.faces"] = torch.zeros(3)
    expected = network.state_dict()["0.weight"] + 1

    def rename(name: str) -> str | None:
        return None if name.startswith("smpl.") else name.removeprefix("module.")

    with pytest.raises(CheckpointError, match=r"missing: 0\.bias"):
        load_into(network, weights, rename=rename)
    load_into(network, weights, rename=rename, optional=("0.bias",))
    assert torch.equal(network.state_dict()["0.weight"], expected)


def test_fingerprint_tells_weights_apart():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    before = fingerprint(layer)
    assert fingerprint(layer) == before
    with torch.no_grad():
        layer[0].weight[0, 0] += 1e-6
    assert fingerprint(layer) != before


def test_equal_content_gives_equal_bytes(tmp_path):
    weights = {"b": torch.arange(5.0), "a": torch.ones(2, 3), "ü": torch.zeros(1, dtype=torch.int64)}
    facts = {name: {"value": name, "text": 'ä\n"quoted"'} for name in "zyxwvutsrqponmlkjihgfedcba"}
    saved = []
    for turn in range(4):
        shuffled = dict(list(facts.items())[turn:] + list(facts.items())[:turn])
        save_weights(tmp_path / f"{turn}.safetensors", weights, shuffled)
        saved.append((tmp_path / f"{turn}.safetensors").read_bytes())
    assert len(set(saved)) == 1
    assert load_metadata(tmp_path / "0.safetensors") == facts
    found = load_weights(tmp_path / "0.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)
