import pytest
import torch
from mmengine.registry import MODELS


def test_diversity_loss__by_hand():
    loss = MODELS.build(dict(type="mmseg_m2f.SpatialDiversityLoss"))
    same = torch.zeros(2, 4, 3, 3)  # looks everywhere: one place of four
    own = 1e4 * torch.eye(16)[:8].view(1, 8, 4, 4).expand(2, -1, -1, -1)
    assert loss([own]).item() == pytest.approx(0, abs=1e-6)
    assert loss([same]).item() == pytest.approx(0.2 * 3 / 4)
    assert loss([same, own]).item() == pytest.approx(0.1 * 3 / 4)
