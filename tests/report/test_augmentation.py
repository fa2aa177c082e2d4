"""PoseAug's pictures: what is drawn where, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import FileError, InputError
from posesyn.report import augmentation_figure, learning_curves
from posesyn.synthesis.augmentation import Augmentor, ViewRange

CURVES = "epoch,gan/usable,gan/views,gan/beyond,val/mpjpe\n0,,,,101\n1,0.9,0.4,nan,99.5\n2,0.95,0.5,,90\n"


def poses(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal((0.2, 0.0, 5.0), 0.3, (count, 16, 3))


def augmentor(angles: bool = True) -> Augmentor:
    torch.manual_seed(0)
    return Augmentor(views=ViewRange(), angles=angles, lengths=angles).eval()


def test_one_scene_per_pose_and_copy():
    figure = augmentation_figure(augmentor(), poses(2), copies=3)
    assert len(figure.axes) == 6
    # 15 bones each of the recorded and the new pose, two cameras of eight edges, two rings.
    assert {len(axes.lines) for axes in figure.axes} == {15 + 15 + 8 + 8 + 2}


def test_the_new_camera_stands_where_it_sees_the_pose_from():
    network, pose = augmentor(angles=False), poses(1)
    figure = augmentation_figure(network, pose, copies=1, seed=4)
    generator = torch.Generator().manual_seed(4)
    made = network(torch.from_numpy(pose).float(), [torch.randn(1, 48, generator=generator) for _ in range(4)])
    distances = [text.get_text() for text in figure.axes[0].texts]
    assert distances == [f"{np.linalg.norm(pose[0, 0]):.1f} m", f"{float(made.translation.detach().norm()):.1f} m"]
    # Seen from the camera that is drawn, the recorded joints lie where the augmented pose has them.
    eye = np.array(figure.axes[0].texts[1].get_position_3d()) - (0, 0, 0.24)
    direction = eye[[0, 2, 1]] * (1, -1, 1)
    place = direction / np.linalg.norm(direction) * float(made.translation.detach().norm())
    centred = pose[0] - pose[0, 0]
    wanted = made.pose_rt[0].detach().norm(dim=-1).numpy()
    np.testing.assert_allclose(np.linalg.norm(centred - place, axis=-1), wanted, rtol=1e-3)


def test_curves_of_several_runs(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "curves.csv").write_text("epoch,val/mpjpe\n0,120\n1,110\n")
    (tmp_path / "b.csv").write_text(CURVES)
    figure = learning_curves({"alone": tmp_path / "a", "PoseAug": tmp_path / "b.csv"})
    error, health = figure.axes
    assert [line.get_label() for line in error.lines] == ["alone", "PoseAug"]
    np.testing.assert_array_equal(error.lines[1].get_ydata(), (101, 99.5, 90))
    # Not a number is left out, and with it a line that has nothing else.
    assert [line.get_label() for line in health.lines] == ["inside the picture", "spread of views"]
    assert len(learning_curves(tmp_path / "a").axes) == 1


def test_curves_of_a_training_without_validation(tmp_path):
    (tmp_path / "curves.csv").write_text("epoch,gan/usable\n0,0.9\n1,0.8\n")
    error, health = learning_curves(tmp_path).axes
    assert not error.lines and len(health.lines) == 1


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="16"):
        augmentation_figure(augmentor(), poses(2)[:, :14])
    with pytest.raises(InputError, match="copy"):
        augmentation_figure(augmentor(), poses(2), copies=0)
    with pytest.raises(FileError, match="no learning curves"):
        learning_curves(tmp_path / "nothing")
    (tmp_path / "curves.csv").write_text("epoch,val/mpjpe\n")
    with pytest.raises(FileError, match="no epoch"):
        learning_curves(tmp_path)
    (tmp_path / "curves.csv").write_text("epoch,val/mpjpe\n0,much\n")
    with pytest.raises(FileError, match="cannot be read"):
        learning_curves(tmp_path)
    with pytest.raises(InputError, match="at least one run"):
        learning_curves({})
    with pytest.raises(InputError, match="finite"):
        augmentation_figure(augmentor(), np.full((2, 16, 3), np.nan))


def test_drawing_leaves_the_network_as_it_was():
    network = augmentor().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    augmentation_figure(network, poses(1), copies=1)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
