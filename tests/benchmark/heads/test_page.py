import re
from pathlib import Path

import numpy as np

from mmseg_m2f.benchmark.heads.page import page
from mmseg_m2f.benchmark.heads.running import Failure, Run
from mmseg_m2f.benchmark.heads.score_table import summarise
from tests.benchmark.heads.conftest import Page


def test_page__holds_table_charts_pictures_and_failures(runs):
    failed = Failure(Run("c", "configs/c.py", 0, runs[0].folder.parent), 2, ("Traceback", "KeyError: <x>"))
    text = page(summarise(runs), [failed], title="T <1>", remarks=["r & s"], warnings=["Not comparable: x"])
    found = Page(text)
    assert found.links == []
    assert found.texts["h1"] == ["T <1>"]
    assert found.texts["h2"] == [
        "Scores and costs",
        "Accuracy over cost",
        "Learning curves",
        "The same images, semantic",
        "Failed runs",
    ]
    assert found.texts["pre"] == ["Traceback\nKeyError: <x>"]
    assert "0.700 (0.600…0.800)" in found.texts["td"]
    assert "scene <0>" in found.texts["td"]
    names = [name for name, _ in found.images]
    assert names == ["accuracy over cost", "learning curves", "input", "truth", "a", "b"]
    colours = [np.asarray(image)[12, 16].tolist() for _, image in found.images[2:]]
    np.testing.assert_allclose(colours, [[128] * 3, [0, 255, 0], [255, 0, 0], [255, 0, 0]], atol=6)
    assert '<td class="best">0.900</td>' in text
    assert re.search(r"<td>0\.700", text)


def test_page__of_failures_alone():
    failed = Failure(Run("c", "c.py", 0, Path("out")), 1, ("why",))
    assert Page(page([], [failed], title="T", remarks=[], warnings=[])).texts["h2"] == ["Failed runs"]
