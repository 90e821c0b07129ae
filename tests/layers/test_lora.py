import copy

import pytest
import torch
from torch import nn

from mmseg_m2f.core.low_rank import merge_low_rank
from mmseg_m2f.layers.lora import LoRAConv2d, LoRASettings, add_lora, is_adapted, merge_lora
from mmseg_m2f.layers.matrix_products import use_fast_products

ALL = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4, bias=False))


def adapted(**settings: object) -> nn.Module:
    network = model()
    add_lora(network, LoRASettings.read(dict(rank=2, layers=("0", "2")) | settings))
    return network


def shake(network: nn.Module) -> None:
    for layer in network.modules():
        if is_adapted(layer):
            nn.init.normal_(layer.lora_up)


def test_lora__starts_as_the_model_is():
    network, x = model(), torch.randn(3, 5, 6)
    use_fast_products(network)  # as in a model; on some processors they round otherwise than PyTorch's
    expected = network(x)
    add_lora(network, LoRASettings(2, layers=("0", "2")))
    assert torch.equal(network(x), expected)


def test_lora__formula():
    network, x = adapted(alpha=3.0), torch.randn(3, 6)
    shake(network)
    layer = network[0]
    expected = x @ layer.weight.T + layer.bias + 1.5 * x @ layer.lora_down.T @ layer.lora_up.T
    torch.testing.assert_close(layer(x), expected)


def test_lora__trains_the_change_alone():
    network, x = adapted(), torch.randn(3, 6)
    shake(network)
    network(x).square().sum().backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {
        f"{layer}.{part}" for layer in "02" for part in ("lora_down", "lora_up")
    }


def test_lora__gradients_are_those_of_the_formula():
    network = adapted().double()
    shake(network)
    assert torch.autograd.gradcheck(network, torch.randn(3, 6, dtype=torch.float64, requires_grad=True))


def test_lora__drops_inputs_of_the_change_in_training():
    network, x = adapted(dropout=0.5), torch.ones(2000, 6)
    expected = network(x)
    assert torch.equal(network.train()(x), expected)  # nothing of the weights' own product
    shake(network)
    assert not torch.equal(network(x), network(x))
    torch.testing.assert_close(network[0](x).mean(0), network.eval()[0](x[:1])[0], atol=0.2, rtol=0)


def test_merge_lora__same_output_and_plain_layers():
    network, x = adapted(alpha=5), torch.randn(3, 6)
    shake(network)
    use_fast_products(network)
    expected, by_names = network(x), merge_low_rank(network.state_dict())
    assert merge_lora(network)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)
    assert not any(is_adapted(layer) for layer in network)
    assert network.state_dict().keys() == model().state_dict().keys() == by_names.keys()
    assert all(torch.equal(value, by_names[name]) for name, value in network.state_dict().items())
    assert not merge_lora(network)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=2, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 6, 1, bias=False),
    ).eval()


def test_lora__convolutions_are_those_of_the_merged_weights():
    network, x = convolutions(), torch.randn(2, 3, 9, 11)
    expected = network(x)
    add_lora(network, LoRASettings(2, alpha=3.0), unless_given=None)
    assert [is_adapted(layer) for layer in network] == [True, False, False, True]  # one filter per channel has rank 1
    torch.testing.assert_close(network(x), expected)
    shake(network)
    changed = network(x)
    assert (changed - expected).abs().max() > 0.1
    layer = network[0]
    change = 1.5 * torch.einsum("or,rihw->oihw", layer.lora_up, layer.lora_down)
    y = nn.functional.conv2d(x, layer.weight + change, layer.bias, stride=2, padding=2, dilation=2)
    torch.testing.assert_close(layer(x), y)
    assert merge_lora(network)
    torch.testing.assert_close(network(x), changed)
    assert not any(is_adapted(layer) for layer in network)


def test_lora__convolutions_train_the_change_alone():
    network = convolutions()
    add_lora(network, LoRASettings(2, layers=("3",)))
    shake(network)
    network(torch.randn(2, 3, 9, 11)).square().sum().backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {"3.lora_down", "3.lora_up"}
    assert isinstance(network[3], LoRAConv2d)


def test_lora__weights_without_the_change_load():
    network = adapted()
    outcome = network.load_state_dict(model().state_dict(), strict=False)
    assert outcome.unexpected_keys == []
    assert set(outcome.missing_keys) == {f"{i}.lora_{part}" for i in "02" for part in ("down", "up", "scale")}


def test_lora__factor_comes_with_the_weights():
    source, target = adapted(alpha=8), adapted(alpha=2)
    shake(source)
    target.load_state_dict(source.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(source(x), target(x))


def test_lora__is_copied():
    network, x = adapted(), torch.randn(3, 6)
    shake(network)
    assert torch.equal(copy.deepcopy(network)(x), network(x))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("vit_small_patch16_224", (294_912, 147_456, 737_280)),
        ("vit_base_patch16_224", (589_824, 294_912, 1_474_560)),
        ("vit_large_patch16_224", (1_572_864, 786_432, 3_932_160)),
    ],
)
def test_lora__parameters_at_rank_16(name, counts):
    import timm

    for layers, expected in zip([ALL[:1], ALL[1:2], ALL[2:]], counts, strict=True):
        with torch.device("meta"):
            vit = timm.create_model(name, num_classes=0)
            add_lora(vit, LoRASettings(16, layers=layers))
        assert sum(p.numel() for p in vit.parameters() if p.requires_grad) == expected


def test_add_lora__layers_that_do_not_exist():
    network = nn.ModuleDict(
        dict(blocks=nn.ModuleList([nn.ModuleDict(dict(qkv=nn.Linear(2, 6), proj=nn.Linear(2, 2)))]))
    )
    with pytest.raises(KeyError, match="got 'qvk', with which none ends. Nearest: qkv. There are: proj, qkv."):
        add_lora(network, LoRASettings(2, layers=("qkv", "qvk")))


def test_add_lora__attention_that_reads_the_weight_itself_is_refused():
    with pytest.raises(KeyError, match="got 'out_proj', with which none ends. There are: none."):
        add_lora(nn.MultiheadAttention(4, 2), LoRASettings(2, layers=("out_proj",)))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(rnk=2), KeyError, "expected keys out of rank, alpha, dropout, layers, got 'rnk'. Nearest: rank."),
        (dict(alpha=2), ValueError, "expected a rank"),
        (dict(rank=0), ValueError, "at least 1"),
        (dict(rank=1.5), ValueError, "a whole number"),
        (dict(rank=2, dropout=1.0), ValueError, r"in \[0, 1\)"),
        (dict(rank=2, alpha=0), ValueError, "lora.alpha: expected a number above 0, got 0"),
        (dict(rank=2, layers="attn.qkv"), ValueError, r"a list of names, such as \['attn.qkv'\], got 'attn.qkv'"),
        (dict(rank=2, layers=[]), ValueError, r"a list of names, such as \['attn.qkv'\], got \[\]"),
    ],
)
def test_lora_settings__wrong_ones(settings, error, message):
    with pytest.raises(error, match=message):
        LoRASettings.read(settings)
