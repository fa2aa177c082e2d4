import numpy as np

from posesyn.data.neighbours import WithNeighbours
from posesyn.types import ArrayImage, Person

IMAGE = ArrayImage(np.zeros((40, 200, 3), np.uint8))


def person(name: str, left: float, image_id: str) -> Person:
    box = np.array([left, 0, left + 40, 40])
    return Person(name, IMAGE, box, np.zeros((17, 2)), np.zeros(17, bool), "coco17", image_id=image_id, meta={"a": 1})


def test_others_of_the_image_come_nearest_first():
    data = WithNeighbours(
        [person("a", 0, "x"), person("b", 30, "x"), person("c", 10, "x"), person("d", 0, "y"), person("e", 0, "")], 2
    )
    assert len(data) == 5
    assert [p.person_id for p in data[0].meta["neighbours"]] == ["c", "b"]
    assert [p.person_id for p in data[1].meta["neighbours"]] == ["c", "a"]
    assert data[3].meta["neighbours"] == data[4].meta["neighbours"] == ()
    assert data[-5].meta["neighbours"] == data[0].meta["neighbours"]
    assert data[0].meta["a"] == 1


def test_no_more_than_asked_for():
    data = WithNeighbours([person(str(row), row, "x") for row in range(6)], most=1)
    assert [len(p.meta["neighbours"]) for p in data] == [1] * 6
