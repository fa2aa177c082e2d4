"""Captions by a vision-language model: a tiny one with random weights, built here, and answers made up."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from posesyn.errors import FileError, InputError, MissingDependencyError
from posesyn.interfaces import Captioner
from posesyn.synthesis.motion.captions import VisionCaptioner, caption_persons, cut_out, first_sentence
from posesyn.types import ArrayImage, Person


def person(name: str, box=(5, 5, 40, 50), captions=(), rng=None) -> Person:
    pixels = (rng or np.random.default_rng(0)).integers(0, 255, (60, 48, 3), dtype=np.uint8)
    return Person(
        name, ArrayImage(pixels), np.array(box, np.float32), np.zeros((17, 2)), np.ones(17), "coco17", captions=captions
    )


class Says:
    """A captioner that answers with what it was given, and remembers who was asked about."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = answers, []

    def caption(self, persons):
        self.asked = [person.person_id for person in persons]
        return list(self.answers)


def test_a_tiny_model_describes_persons_offline(vision_model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    captioner = VisionCaptioner(vision_model, batch_size=2, max_new_tokens=6)
    assert isinstance(captioner.caption([]), list)
    persons = [person(f"p{i}", rng=np.random.default_rng(i)) for i in range(3)]
    said = captioner.caption(persons)
    assert len(said) == 3 and all(isinstance(text, str) and "<" not in text for text in said)
    assert captioner.caption(persons) == said  # nothing is drawn at random
    assert said[1] == captioner.caption(persons[1:2])[0]  # nor does it depend on the batch
    assert "person doing" not in " ".join(said)  # the question is not part of the answer
    described = [persons[0], person("p1", captions=("somebody jumps",), rng=np.random.default_rng(1)), persons[2]]
    sparing = VisionCaptioner(vision_model, batch_size=2, max_new_tokens=6, keep_annotated=True)
    assert sparing.caption(described) == [said[0], "", said[2]]
    fits: Captioner = captioner
    assert set(caption_persons(persons, fits)) <= {"p0", "p1", "p2"}


def test_missing_model_and_package_are_named(tmp_path, vision_model, monkeypatch):
    with pytest.raises(FileError, match=r"no_such.*image-text-to-text"):
        VisionCaptioner(tmp_path / "no_such")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileError, match="no model that turns image and text"):
        VisionCaptioner(tmp_path)
    with pytest.raises(InputError, match="batch_size"):
        VisionCaptioner(vision_model, batch_size=0)
    with pytest.raises(InputError, match="prompt is empty"):
        VisionCaptioner(vision_model, " ")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match="ip install transformers"):
        VisionCaptioner(vision_model)


def test_persons_of_whom_the_model_says_nothing_are_absent():
    says = Says("a person falls", "")
    persons = [person("a"), person("b", captions=("somebody jumps",)), person("c")]
    assert caption_persons(persons[::2], says) == {"a": "a person falls"}
    assert says.asked == ["a", "c"] and caption_persons([], says) == {}
    with pytest.raises(InputError, match=r"each person.*expected 3.*got 2"):
        caption_persons(persons, says)


def test_the_person_is_cut_out():
    picture = cut_out(person("a", (10, 10, 30, 50)), 1.2)
    assert picture.size == (24, 48)
    assert cut_out(person("a", (-20, -20, 200, 200))).size == (48, 60)
    with pytest.raises(InputError, match=r"outside.*'x'"):
        cut_out(person("x", (300, 300, 400, 400)))


@pytest.mark.parametrize(
    "answer,sentence",
    [
        ("The person kneels. The sky is blue.", "The person kneels"),
        ("ASSISTANT: 'a person runs!' ok", "a person runs"),
        ("a person\nraises <end_of_utterance> both arms", "a person raises both arms"),
        ("人が歩いています。空は青い。", "人が歩いています"),
        ("", ""),
    ],
)
def test_answers_become_one_sentence(answer, sentence):
    assert first_sentence(answer) == sentence
