"""MoveNet: random weights against loops, the original ones (where they were fetched) against TensorFlow.js."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from posesyn.detectors.movenet import JOINTS, VARIANTS, MoveNet, MoveNetNetwork, SameConv, decode, official_names
from posesyn.errors import CheckpointError, FileError, InputError
from posesyn.storage.checkpoints import save_weights
from tests.detectors.make_movenet_vectors import VECTORS
from tests.detectors.pictures import figure, stripes, vector_pictures


@pytest.fixture(scope="module")
def lightning():
    torch.manual_seed(0)
    return MoveNet("lightning").eval()


@pytest.fixture(scope="module", params=list(VARIANTS))
def original(request):
    from posesyn.detectors import load_detector
    from posesyn.storage.assets import ASSETS
    from posesyn.storage.fetch import is_fetched

    name = f"movenet_{request.param}"
    if not is_fetched(ASSETS[name]):
        pytest.skip(f"the weights are not here: posesyn assets fetch {name}")
    return load_detector(name, device="cpu")


def official_file(network: MoveNetNetwork) -> dict[str, torch.Tensor]:
    """The network's weights in the names and the layout of the TensorFlow.js file, with constants of its decoding."""
    own, found = network.state_dict(), {}
    for mine, name in official_names():
        value = own[mine]
        if value.ndim == 4:
            per_channel = ".depthwise." in mine
            value = value.permute(2, 3, 0, 1) if per_channel else value.permute(2, 3, 1, 0)
        found[name] = value
    return {
        **found,
        "StatefulPartitionedCall/sub_1/y": torch.ones(()),
        "StatefulPartitionedCall/Reshape_8": torch.zeros(17),
    }


def test_sizes_are_those_of_the_files():
    for variant, (side, width) in VARIANTS.items():
        network = MoveNetNetwork(width)
        assert dict(official_names()).keys() == network.state_dict().keys()
        with torch.inference_mode():
            maps = network(torch.zeros(1, 3, side, side))
        shapes = {name: tuple(value.shape[1:]) for name, value in maps.items()}
        cells = (side // 4, side // 4)
        assert shapes == {"center": (1, *cells), "heatmap": (17, *cells), "regression": (34, *cells),
                          "offset": (34, *cells)}, variant  # fmt: skip
    assert len(dict(official_names())) == len(set(dict(official_names()).values()))


def test_padding_is_tensorflows(rng):
    """SAME: output of ceil(n / stride), what is missing is added at the end first (float64 loop)."""
    for stride in (1, 2):
        conv = SameConv(2, 2, 3, stride, groups=2).double()
        image = rng.normal(size=(2, 8, 6))
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        total = [max((size // stride - 1) * stride + 3 - size, 0) for size in (8, 6)]
        before = [size // 2 for size in total]
        expected = np.zeros((2, 8 // stride, 6 // stride))
        for c in range(2):
            for y in range(8 // stride):
                for x in range(6 // stride):
                    value = bias[c]
                    for i in range(3):
                        for j in range(3):
                            row, column = y * stride + i - before[0], x * stride + j - before[1]
                            if 0 <= row < 8 and 0 <= column < 6:
                                value += weight[c, 0, i, j] * image[c, row, column]
                    expected[c, y, x] = value
        found = conv(torch.from_numpy(image)[None])[0].detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-12)


def slow_decode(maps: dict[str, np.ndarray], row: int) -> np.ndarray:
    """(17, 3) y, x, score of one crop: the steps of the original, one number at a time."""
    center, heatmap = (1 / (1 + np.exp(-maps[name][row])) for name in ("center", "heatmap"))
    regression, offset = maps["regression"][row], maps["offset"][row]
    height, width = center.shape[1:]
    best, place = -1.0, (0, 0)
    for y in range(height):
        for x in range(width):
            value = center[0, y, x] / (np.sqrt((y - height / 2) ** 2 + (x - width / 2) ** 2) + 1.8)
            if value > best:
                best, place = value, (y, x)
    found = np.zeros((JOINTS, 3))
    for joint in range(JOINTS):
        about = [place[axis] + regression[2 * joint + axis][place] for axis in (0, 1)]
        best, cell = -1.0, (0, 0)
        for y in range(height):
            for x in range(width):
                value = heatmap[joint, y, x] / (np.sqrt((y - about[0]) ** 2 + (x - about[1]) ** 2) + 1.8)
                if value > best:
                    best, cell = value, (y, x)
        found[joint] = (
            (cell[0] + offset[2 * joint][cell]) / height,
            (cell[1] + offset[2 * joint + 1][cell]) / width,
            heatmap[joint][cell],
        )
    return found


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_decoding_equals_a_loop(rng, batch):
    shapes = {"center": 1, "heatmap": JOINTS, "regression": 2 * JOINTS, "offset": 2 * JOINTS}
    maps = {name: rng.normal(size=(batch, count, 9, 9)) for name, count in shapes.items()}
    maps["regression"] *= 3
    places, scores = decode({name: torch.from_numpy(value) for name, value in maps.items()})
    for row in range(batch):
        expected = slow_decode(maps, row)
        np.testing.assert_allclose(places[row].numpy(), expected[:, [1, 0]], atol=1e-12)
        np.testing.assert_allclose(scores[row].numpy(), expected[:, 2], atol=1e-12)


def test_frames_do_not_depend_on_each_other(lightning, rng):
    images = rng.integers(0, 256, (3, 90, 120, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 60, 85], [40, 10, 119, 80], [0, 0, 120, 90]], np.float32)
    keypoints, scores = lightning.detect(images, boxes)
    assert keypoints.shape == (3, 17, 2) and scores.shape == (3, 17)
    assert keypoints.dtype == scores.dtype == np.float32 and ((scores >= 0) & (scores <= 1)).all()
    one_by_one = MoveNet("lightning", batch_size=1)
    one_by_one.load_state_dict(lightning.state_dict())
    for other in (one_by_one, lightning):
        for rows in ([0], [2, 1]):
            found = other.detect(images[rows], boxes[rows])
            np.testing.assert_allclose(found[0], keypoints[rows], atol=2e-2)
            np.testing.assert_allclose(found[1], scores[rows], atol=1e-5)
    assert one_by_one.training  # as it was


def test_crop_pixels_come_back_as_pixels_of_the_frame():
    """A bright square is found where it is, whatever box is asked for: the way into the crop and back is one map."""

    class Brightest(nn.Module):
        def forward(self, crops):
            light = torch.nn.functional.avg_pool2d(crops.mean(1, keepdim=True), 4)
            maps = {"center": light, "heatmap": light.expand(-1, JOINTS, -1, -1)}
            flat = torch.zeros(len(crops), 2 * JOINTS, *light.shape[2:])
            return {**{name: 5 * value for name, value in maps.items()}, "regression": flat, "offset": flat + 0.5}

    image = np.zeros((100, 140, 3), np.uint8)
    image[43:48, 73:78] = 255
    boxes = [[20, 10, 120, 90], [60, 30, 100, 70], [50, -20, 110, 90], [65, 35, 90, 140]]
    detector = MoveNet("thunder")
    detector.network = Brightest()
    keypoints, _ = detector.detect(np.stack([image] * 4), np.array(boxes))
    # Cells are 0.7 to 2.4 px; of those that the square fills the one nearest to the middle of the crop is taken.
    np.testing.assert_allclose(keypoints, np.broadcast_to((75, 45), keypoints.shape), atol=2.5)


def test_official_files_load(lightning, tmp_path, rng):
    save_weights(tmp_path / "lightning.safetensors", official_file(lightning.network))
    torch.manual_seed(1)
    again = MoveNet("lightning")
    again.network.load_official(tmp_path / "lightning.safetensors")
    for name, value in lightning.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name


def test_wrong_files_are_named(lightning, tmp_path):
    file = official_file(lightning.network)
    save_weights(tmp_path / "lightning.safetensors", file)
    with pytest.raises(
        CheckpointError, match=r"of another shape: .*StatefulPartitionedCall/center_net.*expanded_conv_project"
    ):
        MoveNet("thunder").network.load_official(tmp_path / "lightning.safetensors")
    file.pop("StatefulPartitionedCall/center_0/conv2d_4/BiasAdd/ReadVariableOp")
    save_weights(tmp_path / "cut.safetensors", file)
    with pytest.raises(CheckpointError, match="1 missing: StatefulPartitionedCall/center_0/conv2d_4/BiasAdd"):
        MoveNet("lightning").network.load_official(tmp_path / "cut.safetensors")
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    with pytest.raises(FileError, match="damaged"):
        MoveNet("lightning").network.load_official(tmp_path / "broken.safetensors")
    save_weights(tmp_path / "other.safetensors", {"layer.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="missing"):
        MoveNet("lightning").network.load_official(tmp_path / "other.safetensors")


def test_bad_input(lightning):
    image = np.zeros((1, 40, 50, 3), np.uint8)
    for box in ([60, 5, 70, 30], [10, 10, 10, 30], [np.nan, 0, 5, 5]):
        with pytest.raises(InputError, match=r"box .* in detector 'movenet_lightning', frame 0"):
            lightning.detect(image, np.array([box]))
    with pytest.raises(InputError, match="one box per image"):
        lightning.detect(image.astype(np.float32), np.array([[0, 0, 9, 9]]))
    with pytest.raises(InputError, match="one box per image"):
        lightning.detect(image, np.array([0, 0, 9, 9]))
    with pytest.raises(InputError, match="unknown variant"):
        MoveNet("multipose")
    with pytest.raises(InputError, match="batch_size"):
        MoveNet("lightning", batch_size=0)
    keypoints, scores = lightning.detect(np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 4)))
    assert keypoints.shape == (0, 17, 2) and scores.shape == (0, 17)


def test_answers_equal_those_of_tensorflow_js(original):
    variant = original.name.removeprefix("movenet_")
    side = VARIANTS[variant][0]
    expected = np.load(VECTORS)[variant]
    crops = torch.from_numpy(vector_pictures(side)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        places, scores = decode(original.network(crops))
    # The file of lightning rounds 1 / 48 to a half: 0.05 px at the far border.
    np.testing.assert_allclose(side * places.numpy(), side * expected[..., [1, 0]], atol=0.06)
    np.testing.assert_allclose(scores.numpy(), expected[..., 2], atol=1e-3)


def test_the_box_brings_the_crop_of_the_stored_answers(original):
    """A picture of twice the size with the box of the whole: the same keypoints, in its pixels."""
    variant = original.name.removeprefix("movenet_")
    side = VARIANTS[variant][0]
    picture = figure(side).repeat(2, 0).repeat(2, 1)
    box = np.array([[-0.5, -0.5, 2 * side - 0.5, 2 * side - 0.5]])
    whole = MoveNet(variant, box_scale=1.0)
    whole.network.load_state_dict(original.network.state_dict())
    keypoints, scores = whole.detect(picture[None], box)
    expected = np.load(VECTORS)[variant][0]
    np.testing.assert_allclose(keypoints[0], 2 * side * expected[:, [1, 0]] - 0.5, atol=1.5)
    np.testing.assert_allclose(scores[0], expected[:, 2], atol=0.05)


def test_scores_tell_where_nobody_is(original):
    side = 200
    person, box = figure(side), np.array([[0, 0, side, side]], np.float32)
    seen = original.detect(person[None], box)[1].mean()
    grey = np.repeat(person.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    others = {
        "grey": grey,
        "upside down": person[::-1],
        "flat": np.full_like(person, 128),
        "black": np.zeros_like(person),
        "waves": stripes(side),
        "noise": np.random.default_rng(0).integers(0, 256, person.shape, dtype=np.uint8),
    }
    found = {name: float(original.detect(picture[None], box)[1].mean()) for name, picture in others.items()}
    assert seen > 0.3 and found["grey"] > 0.8 * seen, found
    assert found["upside down"] < 0.75 * seen, found
    assert max(found[name] for name in ("flat", "black", "waves", "noise")) < 0.2, found


def test_of_several_persons_in_a_box_one_is_taken_whole(original):
    side = 200
    single = figure(side, background=False)
    pair = np.concatenate((single, single), axis=1)
    keypoints, scores = original.detect(pair[None], np.array([[0, 0, 2 * side, side]], np.float32))
    confident = keypoints[0, scores[0] > 0.3]
    assert len(confident) > 5
    assert (confident[:, 0] < side).all() or (confident[:, 0] > side).all()


def test_real_people_are_found(original, shared):
    """Twelve joints of photographs of sports: 67 % lie within 0.6 heads with lightning on 78 persons (measured)."""
    from posesyn import skeletons
    from posesyn.data.persons.lspet import LspExtended

    people = LspExtended(shared / "data/lspet/val/joints.mat", shared / "data/lspet/val/images", on_bad="skip")
    people = [person for person in list(people)[:60] if person.visible[12:14].all()][:30]
    hits = total = 0
    for person in people:
        found, _ = original.detect(person.image.load()[None], person.box_xyxy[None])
        points, present = skeletons.convert(found[0], "coco17", "lsp14", approximate=False)
        head = np.linalg.norm(np.subtract(*person.keypoints_px[12:14]))
        near = np.linalg.norm(points - person.keypoints_px, axis=-1) <= 0.6 * head
        used = (present & person.visible)[:12]
        hits, total = hits + int(near[:12][used].sum()), total + int(used.sum())
    assert total > 200 and hits / total > 0.5
