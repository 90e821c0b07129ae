import torch

from mmseg_m2f.core.sizes import is_known_equal


def test_is_known_equal__compares_numbers():
    assert is_known_equal(torch.Size((3, 4)), (3, 4))
    assert not is_known_equal((3, 4), (4, 3))


def test_is_known_equal__is_false_in_a_program_for_any_size():
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if is_known_equal(x.shape[-2:], (4, 4)) else x + 1

    shapes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Model(), (torch.zeros(1, 1, 5, 6),), dynamic_shapes=shapes)
    assert float(program.module()(torch.zeros(1, 1, 4, 4)).max()) == 1
