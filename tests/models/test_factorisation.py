import torch
from torch import nn

from mmseg_m2f.models.factorisation import SteadyNMF

OPTIONS = dict(MD_S=2, MD_R=3, train_steps=1, eval_steps=2)


def run_with_seed(module: nn.Module, x: object, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return module(x)


def test_steady_nmf__same_image_same_result_in_evaluation():
    ham = SteadyNMF(8, OPTIONS).eval()
    x = torch.rand(2, 8, 5, 6)
    first = run_with_seed(ham, x, 1)
    state = torch.get_rng_state()
    assert torch.equal(first, ham(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[1:], ham(x[1:]))  # whatever image stands beside it
    assert torch.equal(first, SteadyNMF(8, OPTIONS).eval()(x))


def test_steady_nmf__draws_its_bases_in_training():
    ham, x = SteadyNMF(8, OPTIONS).train(), torch.rand(2, 8, 5, 6)
    assert not torch.equal(run_with_seed(ham, x, 1), run_with_seed(ham, x, 2))
    assert torch.equal(run_with_seed(ham, x, 1), run_with_seed(ham, x, 1))
    assert "fixed_bases" not in ham.state_dict()
