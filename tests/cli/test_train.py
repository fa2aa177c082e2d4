"""The two training commands of lifters, on mocap of ../shared/data."""

from __future__ import annotations

import json
import shutil

import pytest

from posesyn.cli.main import main
from posesyn.estimators.lifters import load_lifter


def test_bad_data_is_told(tmp_path, capsys):
    data = ["--data.format", "motions", "--data.path", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["train", "lifter", *data]) == 2
    assert "no motions" in capsys.readouterr().err


def test_lifter_then_poseaug(tmp_path, shared, capsys):
    files = [shared / "data/cmu/bvh" / f"{name}.bvh.gz" for name in ("02_01", "06_01", "08_01")]
    motions = tmp_path / "motions"
    motions.mkdir()
    for path in files:
        if not path.is_file():
            pytest.skip(f"{path.name} is not in the data")
        shutil.copy(path, motions)
    data = ["--data.format", "motions", "--data.path", str(motions), "--progress", "false"]
    alone = ["train", "lifter", *data, "--lifter.name", "stgcn", "--lifter.options", '{"width": 8}']
    assert main([*alone, "--out", str(tmp_path / "lifter"), "--training.epochs", "1"]) == 0, capsys.readouterr().err
    assert "epoch 1 was best on validation data" in capsys.readouterr().out
    start = ["--lifter.checkpoint", str(tmp_path / "lifter/lifter.safetensors")]
    small = ["--training.epochs", "1", "--training.warmup", "0", "--training.batch_size", "128"]
    assert main(["train", "poseaug", *data, *start, *small, "--out", str(tmp_path / "poseaug")]) == 0
    made = tmp_path / "poseaug/lifter.safetensors"
    assert load_lifter(made).options() == {"width": 8, "dropout": 0}  # as published: none with PoseAug
    other = ["train", "poseaug", *data, "--lifter.name", "mlp", *start, *small, "--out", str(tmp_path / "other")]
    assert main(other) == 2
    assert "--lifter.name stgcn" in capsys.readouterr().err
    scored = ["evaluate", "lifter", *data[:4], "--data.rig.heights", "[0.5, 0.7]", "--lifter.checkpoint", str(made)]
    assert main([*scored, "--out", str(tmp_path / "scores.json")]) == 0
    assert "stgcn," in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text()).keys() >= {"mpjpe", "pa_mpjpe", "pck150", "auc", "poses"}


@pytest.mark.integration
def test_a_prior_is_trained_from_the_command_line(tmp_path, shared, capsys):
    from posesyn.synthesis.motion.synthesizer import MotionSynthesizer

    source, folder = shared / "data/cmu", tmp_path / "mocap"
    lines = [json.loads(line) for line in (source / "captions.jsonl").read_text().splitlines()]
    chosen = [line for line in lines if line["file"].split("/")[-1].startswith(("02_01", "02_03", "02_04"))]
    if not chosen:
        pytest.skip("the motions are not in the data")
    (folder / "bvh").mkdir(parents=True)
    for line in chosen:
        (folder / line["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / line["file"], folder / line["file"])
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, chosen)))
    shutil.copy(source / "split.json", folder)
    small = {"tokeniser_steps": 2, "transformer_steps": 2, "residual_steps": 2, "codes": 16, "code_dim": 8}
    small |= {"quantizers": 2, "beam": 2, "tokeniser_width": 16, "width": 12, "layers": 1, "heads": 2}
    small |= {"perturbed_frames": 500, "held_poses": 100, "checkpoint_every": 1}
    told = [item for name, value in small.items() for item in (f"--training.{name}", str(value))]
    data = ["--data.folder", str(folder), "--data.split", "null", "--data.validation", "null"]
    command = [
        "train",
        "prior",
        *data,
        "--out",
        str(tmp_path / "prior"),
        *told,
        "--device",
        "cpu",
        "--progress",
        "false",
    ]
    assert main(command) == 0, capsys.readouterr().err
    path = tmp_path / "prior/prior.safetensors"
    assert f"prior: {path}" in capsys.readouterr().out
    made = MotionSynthesizer.from_pretrained(path, device="cpu")
    assert made.from_captions(["a person walks"], num_motions=1, seed=0, progress=False)[0].pose_rotvec.shape[1:] == (
        24,
        3,
    )
