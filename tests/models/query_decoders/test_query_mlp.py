import torch

from mmseg_m2f.models.query_decoders.query_mlp import QueryMLP


def test_query_mlp__by_hand():
    mlp = QueryMLP(2, 3)
    x = torch.randn(4, 5, 2)
    hidden = (x @ mlp[0].weight.T + mlp[0].bias).clamp(min=0)
    hidden = (hidden @ mlp[2].weight.T + mlp[2].bias).clamp(min=0)
    torch.testing.assert_close(mlp(x), hidden @ mlp[4].weight.T + mlp[4].bias)
