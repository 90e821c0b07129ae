import pytest
import torch

from mmseg_m2f.core.low_rank import add_low_rank, merge_low_rank


def change(scale: float = 0.5) -> dict[str, torch.Tensor]:
    down, up = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0], [3.0]])
    return dict(lora_down=down, lora_up=up, lora_scale=torch.tensor(scale))


EXPECTED = torch.tensor([[0.5, 1.0, 0.0], [1.5, 3.0, 0.0]])


def test_add_low_rank__by_hand():
    found = add_low_rank(torch.ones(2, 3), *change().values())
    torch.testing.assert_close(found, 1 + EXPECTED)


def test_add_low_rank__half_precision_is_rounded_once():
    weight, parts = torch.randn(8, 8).bfloat16(), [torch.randn(2, 8).bfloat16(), torch.randn(8, 2).bfloat16()]
    expected = (weight.double() + 0.3 * parts[1].double() @ parts[0].double()).bfloat16()
    found = add_low_rank(weight, *parts, torch.tensor(0.3))
    assert (found == expected).float().mean() > 0.98


def test_merge_low_rank__leaves_the_weights_alone():
    weights = {"a.weight": torch.zeros(2, 3), "a.bias": torch.ones(2), "b.weight": torch.ones(2)}
    merged = merge_low_rank(weights | {f"a.{name}": value for name, value in change().items()})
    assert merged.keys() == weights.keys()
    torch.testing.assert_close(merged["a.weight"], EXPECTED)
    assert torch.equal(weights["a.weight"], torch.zeros(2, 3))


def test_merge_low_rank__below_a_prefix():
    weights = {f"{p}.a.{name}": value for p in "xy" for name, value in change().items()}
    weights |= {"x.a.weight": torch.zeros(2, 3), "y.a.weight": torch.zeros(2, 3)}
    assert {name for name in merge_low_rank(weights, prefix="x.") if "lora" in name} == {
        "y.a.lora_down",
        "y.a.lora_up",
        "y.a.lora_scale",
    }


def test_merge_low_rank__weight_that_is_missing():
    with pytest.raises(ValueError, match=r"expected a\.weight, .*got none. Checkpoints of TrainableOnly"):
        merge_low_rank({f"a.{name}": value for name, value in change().items()})
