"""Queries, errors and confusion of one leaf for each task, with random weights."""

from pathlib import Path

import pytest

from mmseg_m2f.analysis.confusion import ConfusionCounter
from mmseg_m2f.analysis.judged_samples import task_of, visit_test_set
from mmseg_m2f.analysis.object_errors import ObjectErrors
from mmseg_m2f.analysis.panoptic_errors import PanopticErrors
from mmseg_m2f.analysis.query_page import query_page
from mmseg_m2f.analysis.query_visits import QueryAnalysis, analyse_queries
from mmseg_m2f.analysis.semantic_errors import SemanticErrors
from tests.analysis.leaves import LEAVES, OPTIONS, write_weights

METRIC = dict(semantic="mIoU", instance="AP", panoptic="PQ")
ERRORS = dict(semantic=SemanticErrors, instance=ObjectErrors, panoptic=PanopticErrors)


@pytest.fixture(scope="module", params=LEAVES)
def analysed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, QueryAnalysis]:
    """Task, checkpoint and what is found of its queries."""
    folder = tmp_path_factory.mktemp("queries")
    checkpoint = write_weights(request.param, folder)
    found = analyse_queries(LEAVES[request.param], checkpoint, OPTIONS, work_dir=str(folder))
    return request.param, checkpoint, found


def test_analyse_queries__last_layer_has_the_metric_of_the_model(analysed: tuple[str, str, QueryAnalysis]) -> None:
    task, _, found = analysed
    assert len(found.layers) == 4
    assert found.layers[-1] == pytest.approx(dict(found.metrics))
    assert METRIC[task] in found.layers[0]


def test_analyse_queries__every_segment_is_matched(analysed: tuple[str, str, QueryAnalysis]) -> None:
    _, _, found = analysed
    assert found.statistics.num_images == 3
    assert found.statistics.matched.sum() == found.statistics.segments > 3
    assert (found.statistics.predicted.sum(1) == found.statistics.active).all()
    assert "<h2>Queries</h2>" in query_page(found, title="x")


def test_visit_test_set__errors_begin_at_the_metric_of_the_model(
    analysed: tuple[str, str, QueryAnalysis], tmp_path: Path
) -> None:
    task, checkpoint, found = analysed
    errors, counter = ERRORS[task](), ConfusionCounter(task, score_threshold=0.0)

    def visit(sample: dict, data: object) -> None:
        errors(sample, data)
        counter(sample, data)

    assert task_of(LEAVES[task], OPTIONS) == task
    data = visit_test_set(LEAVES[task], checkpoint, OPTIONS, task=task, visit=visit, work_dir=str(tmp_path))
    table = errors.table()
    assert table.metric == METRIC[task]
    assert table.value == pytest.approx(data.metrics[METRIC[task]]) == pytest.approx(found.metrics[METRIC[task]])
    assert any(row.count for row in table.rows)
    matrix = counter.matrix(data.classes)
    assert matrix.counts.sum() > 0


def test_analyse_queries__refuses_what_has_no_queries_or_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.pth"):
        analyse_queries(LEAVES["semantic"], str(tmp_path / "none.pth"), OPTIONS, work_dir=str(tmp_path))
    with pytest.raises(ValueError, match="expected a .pth file"):
        analyse_queries(LEAVES["semantic"], str(tmp_path / "model.onnx"), OPTIONS, work_dir=str(tmp_path))
