import json

import pytest

from mmseg_m2f.benchmark.heads.score_table import Spread, as_json, markdown, notes, summarise, table
from tests.benchmark.heads.conftest import write_result


def test_summary__scores_and_costs_over_seeds(runs):
    first, second = summarise(runs)
    assert first.seeds == [0, 2]
    assert first.scores == {"mIoU": Spread(pytest.approx(0.7), 0.6, 0.8, 2)}
    assert second.scores == {"mIoU": Spread(0.9, 0.9, 0.9, 1)}
    assert first.costs.latency_s == pytest.approx(1.01)
    assert first.curves["mIoU"].iterations == [10, 20]
    assert [spread.least for spread in first.curves["mIoU"].spreads] == [0.3, 0.6]
    header, cells = table([first, second])
    assert header[:3] == ["head", "mIoU", "parameters, M"]
    assert cells[0] == ["a", "0.700 (0.600…0.800)", "2.50", "3", "0.2", "50", "1.01e+03"]
    assert cells[1][:2] == ["b", "0.900"]
    assert json.loads(json.dumps(as_json(first)))["scores"]["mIoU"]["most"] == 0.8


def test_summary__markdown_is_a_table(runs):
    lines = markdown(summarise(runs), ["a remark"]).splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[2].startswith("| a | 0.700")
    assert lines[-1] == "- a remark"


def test_summary__markdown_shows_names_as_they_are(tmp_path, runs):
    runs.append(write_result(tmp_path, "a|<b>", 0, 0.5))
    lines = markdown(summarise(runs), ["of *.py\n| <script>"]).splitlines()
    assert lines[4].startswith(r"| a\|\<b\> | 0.500")
    assert lines[-1] == r"- of \*.py \| \<script\>"


def test_summary__says_what_is_not_comparable(tmp_path, runs):
    assert notes(summarise(runs)) == []
    other = dict(type="ADE20KDataset", images=2000, classes=150)
    runs.append(write_result(tmp_path, "c", 0, 0.5, batch=2, data=other))
    data, batch = notes(summarise(runs))
    assert data == (
        "Not comparable: tested on different data: GeneratedShapes, 2 images, 8 classes (a, b); "
        "ADE20KDataset, 2000 images, 150 classes (c)"
    )
    assert "batches: 8 (a, b); 2 (c)" in batch


def test_summary__batch_of_several_processes(tmp_path, runs):
    runs.append(write_result(tmp_path, "c", 0, 0.5, processes=2))
    (batch,) = notes(summarise(runs))
    assert batch.endswith("batches: 8 (a, b); 8 in each of 2 processes, memory of one, (c)")


def test_summary__refuses_another_file(runs):
    runs[1].result.write_text('{"metrics": {}}')
    with pytest.raises(ValueError, match=r"seed-2/result.json: expected the result of a run .* Delete the file"):
        summarise(runs)
