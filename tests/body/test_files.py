"""Licensed SMPL files, tested with files of the right form and made-up content."""

from __future__ import annotations

import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from scipy import sparse

from posesyn.body import load_body
from posesyn.body.files import smpl_parents
from posesyn.errors import FileError, InputError, UnsafeFileError

V = 6890


@pytest.fixture(scope="module")
def model() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    regressor = np.zeros((24, V))
    for row in regressor:
        row[rng.choice(V, 5, replace=False)] = 0.2
    tree = np.stack([np.array(smpl_parents()), np.arange(24)]).astype(np.int64)
    tree[0, 0] = 2**32 - 1
    return {
        "v_template": rng.normal(size=(V, 3)),
        "shapedirs": rng.normal(size=(V, 3, 10)) * 0.01,
        "posedirs": rng.normal(size=(V, 3, 207)).astype(np.float32) * 0.001,
        "J_regressor": sparse.csc_matrix(regressor),
        "weights": np.eye(24)[rng.integers(0, 24, V)],
        "f": rng.integers(0, V, (13776, 3)).astype(np.uint32),
        "kintree_table": tree,
        "bs_type": "lrotmin",
    }


@pytest.fixture
def chumpy(monkeypatch):
    """Stand-ins under chumpy's names that exist only while a test writes its pickle."""
    made = {}
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        cls = type(name, (), {"__module__": module, "__qualname__": name})
        holder = types.ModuleType(module)
        setattr(holder, name, cls)
        monkeypatch.setitem(sys.modules, module, holder)
        made[name] = cls
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))

    def build(cls: str, **state):
        value = made[cls]()
        value.__dict__.update(state)
        return value

    return build


def _save(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def _oracle(model: dict, rotations: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """SMPL's equations (Loper et al. 2015, section 3) as loops in float64: the posed vertices."""
    shaped = model["v_template"] + model["shapedirs"] @ betas
    joints = model["J_regressor"] @ shaped
    feature = (rotations[1:] - np.eye(3)).ravel()
    posed = shaped + model["posedirs"].astype(np.float64) @ feature
    globals_ = []
    for j, parent in enumerate(smpl_parents()):
        own = np.eye(4)
        own[:3, :3] = rotations[j]
        own[:3, 3] = joints[j] - (joints[parent] if j else 0)
        globals_.append(own if j == 0 else globals_[parent] @ own)
    result = np.zeros((V, 3))
    for v in range(V):
        j = int(model["weights"][v].argmax())
        result[v] = globals_[j][:3, :3] @ (posed[v] - joints[j]) + globals_[j][:3, 3]
    return result


def test_chumpy_pickle_loads_and_follows_smpls_equations(tmp_path, model, chumpy, rng):
    first = model["shapedirs"]
    content = dict(model)
    content["v_template"] = chumpy("Ch", x=model["v_template"])
    content["weights"] = chumpy("Ch", x=model["weights"], _dirty_vars=set())
    wide = np.concatenate([first, np.ones((V, 3, 2))], 2)
    index = np.arange(wide.size).reshape(wide.shape)[..., :10].ravel()
    content["shapedirs"] = chumpy("Select", a=chumpy("Ch", x=wide), idxs=index, preferred_shape=(V, 3, 10))
    body = load_body(_save(tmp_path / "SMPL_NEUTRAL.pkl", content), dtype=torch.float64)
    from scipy.spatial.transform import Rotation

    rotations, betas = Rotation.random(24, random_state=0).as_matrix(), rng.normal(size=10)
    output = body(torch.tensor(rotations)[None], torch.tensor(betas)[None])
    np.testing.assert_allclose(output.vertices[0].numpy(), _oracle(model, rotations, betas), atol=1e-5)
    assert output.joints.shape == (1, 45, 3) and body.uv is None and body.part_of_vertex is None
    assert body.faces.shape == (13776, 3)


def test_npz_and_folder_and_environment(tmp_path, model, monkeypatch):
    plain = {k: v for k, v in model.items() if isinstance(v, np.ndarray)} | {
        "J_regressor": model["J_regressor"].toarray()
    }
    folder = tmp_path / "smpl"
    folder.mkdir()
    np.savez(folder / "SMPL_FEMALE.npz", **plain)
    path = load_body(folder / "SMPL_FEMALE.npz")
    assert path.num_vertices == V
    assert load_body(tmp_path, gender="female").name == str(folder / "SMPL_FEMALE.npz")
    monkeypatch.setenv("POSESYN_SMPL", str(tmp_path))
    assert load_body("smpl", gender="female").name == str(folder / "SMPL_FEMALE.npz")
    with pytest.raises(FileError, match="SMPL_MALE"):
        load_body("smpl", gender="male")


def test_missing_file_says_where_to_get_it_and_what_else_works(tmp_path, monkeypatch):
    monkeypatch.delenv("POSESYN_SMPL", raising=False)
    for place in ("smpl", tmp_path, tmp_path / "absent.pkl"):
        with pytest.raises(FileError) as info:
            load_body(place)
        for text in ("smpl.is.tue.mpg.de", "egister", "POSESYN_SMPL", 'load_body("anny")'):
            assert text in str(info.value)


class _Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_malicious_smpl_pickle_runs_nothing(tmp_path, model):
    sentinel = tmp_path / "ran"
    path = _save(tmp_path / "SMPL_NEUTRAL.pkl", {**model, "weights": _Evil(f"touch {sentinel}")})
    with pytest.raises(UnsafeFileError, match="system"):
        load_body(path)
    assert not sentinel.exists()


def test_npz_with_objects_is_refused(tmp_path, model):
    path = tmp_path / "SMPL_NEUTRAL.npz"
    np.savez(path, **{k: v for k, v in model.items() if k != "J_regressor"}, J_regressor=np.array([{}], dtype=object))
    with pytest.raises(UnsafeFileError):
        load_body(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "lacks arrays"),
        ({"v_template": np.zeros((10475, 3))}, "not the SMPL mesh"),
        ({"weights": np.zeros((V, 24))}, "must sum to 1"),
        ({"f": np.full((3, 3), V)}, "faces name vertices"),
        ({"shapedirs": np.full((V, 3, 10), np.nan)}, "NaN"),
        ({"shapedirs": np.zeros((V, 3, 4))}, "wrong shape"),
        ({"kintree_table": np.zeros((2, 24), int)}, "kinematic tree"),
        ({"posedirs": np.array(["a"])}, "does not hold numbers"),
    ],
)
def test_wrong_content(tmp_path, model, change, message):
    content = {k: v for k, v in {**model, **change}.items() if v is not None}
    with pytest.raises(FileError, match=message):
        load_body(_save(tmp_path / "m.pkl", content))


def test_other_chumpy_expressions_and_other_files(tmp_path, model, chumpy):
    with pytest.raises(FileError, match="plain arrays"):
        load_body(_save(tmp_path / "m.pkl", {**model, "weights": chumpy("Ch", a=1)}))
    with pytest.raises(FileError, match="dictionary"):
        load_body(_save(tmp_path / "m.pkl", [1]))
    (tmp_path / "m.txt").write_text("x")
    with pytest.raises(FileError, match="not a SMPL file"):
        load_body(tmp_path / "m.txt")
    with pytest.raises(InputError, match="small"):
        load_body(tmp_path / "m.pkl", size="small")
    with pytest.raises(InputError, match="gender"):
        load_body(tmp_path, gender="other")
