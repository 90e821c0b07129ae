from itertools import combinations

import numpy as np

from mmseg_m2f.benchmark.heads.charts import draw_curves, draw_trade_offs
from mmseg_m2f.benchmark.heads.score_table import Costs, Curve, Row, Spread


def row(name: str, score: float) -> Row:
    spread = Spread(score, score, score, 1)
    costs = Costs(1_000_000, 1_000_000_000, 0.1, None, 0.01)
    return Row(name, [0], {"mIoU": spread}, costs, {"mIoU": Curve([10, 20], [spread, spread])}, {}, [])


def test_charts__no_two_heads_look_alike():
    hidden = [row(str(index), -1.0) for index in range(20)]  # their numbers alone differ, below the axis
    for draw in (draw_curves, draw_trade_offs):
        pictures = []
        for index in (0, 3, 10, 13):
            rows = [head._replace(name=" ") for head in hidden]
            rows[index] = row(" ", 0.5)
            pictures.append(np.asarray(draw(rows)).astype(int))
        for one, other in combinations(pictures, 2):
            assert np.abs(one - other).max() > 100
