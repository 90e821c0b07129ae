import pytest
import torch

from mmseg_m2f.checkpoints.key_map import KeyMap, Row, thirds, within

ROWS = (
    Row("head.a.{i+1}.*", "their.{i}.*"),
    thirds("attn.in_proj_*", "att.", ("q", "k", "v")),
    *within("ours.", "theirs.", {"x.*": "y.*"}),
    Row("query", "embed", batched=True),
)


def test_key_map__names_in_both_directions() -> None:
    names = KeyMap("a model", ROWS)
    theirs = {"their.0.weight": torch.ones(1), "theirs.y.bias": torch.zeros(2)}
    ours = names.to_ours(theirs)
    assert [*ours] == ["head.a.1.weight", "ours.x.bias"]
    assert names.from_ours(ours) == theirs
    assert names.our_name("their.11.running_mean") == "head.a.12.running_mean"
    assert names.our_name("their.0.other") is None


def test_key_map__packed_weights_are_stacked_and_split() -> None:
    names = KeyMap("a model", ROWS)
    theirs = {f"att.{part}.weight": torch.full((2, 3), float(value)) for value, part in enumerate("qkv")}
    ours = names.to_ours(theirs)
    assert ours["attn.in_proj_weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    back = names.from_ours(ours)
    assert {name: value[0, 0].item() for name, value in back.items()} == {
        f"att.{p}.weight": i for i, p in enumerate("qkv")
    }
    del theirs["att.k.weight"]
    with pytest.raises(KeyError, match=r"1 weights have no counterpart: attn.in_proj_weight. Expected a model"):
        names.to_ours(theirs)


def test_key_map__first_axis_that_theirs_lacks() -> None:
    names = KeyMap("a model", ROWS)
    assert names.to_ours({"embed": torch.zeros(5, 4)})["query"].shape == (1, 5, 4)
    assert names.from_ours({"query": torch.zeros(1, 5, 4)})["embed"].shape == (5, 4)


def test_key_map__swin_patches() -> None:
    """Inputs by place, down the columns, and then by channel become inputs by channel and then by place."""
    names = KeyMap("a model", (Row("ours", "theirs", reorder=True),))
    theirs = torch.tensor(
        [[10, 20, 11, 21, 12, 22, 13, 23]]
    )  # place · 1 + channel · 10; places (0,0) (1,0) (0,1) (1,1)
    assert names.to_ours({"theirs": theirs})["ours"].tolist() == [[10, 12, 11, 13, 20, 22, 21, 23]]
    assert torch.equal(names.from_ours(names.to_ours({"theirs": theirs}))["theirs"], theirs)


def test_key_map__older_names_and_what_is_left_out() -> None:
    names = KeyMap("a model", ROWS, older=((r"^old\.", "theirs."),), ignored=r"loss\..*", left_out=r"counter")
    kept, dropped = names.modern({"old.y.bias": torch.zeros(1), "loss.weight": torch.zeros(1)})
    assert ([*kept], dropped) == (["theirs.y.bias"], ["loss.weight"])
    with pytest.raises(KeyError, match=r"old.y.bias: the newest name of this weight is theirs.y.bias, and the file"):
        names.modern({"theirs.y.bias": torch.zeros(1), "old.y.bias": torch.zeros(1)})
    assert names.leaves_out("counter")
    assert names.from_ours({"counter": torch.zeros(1)}) == {}


def test_key_map__position_index_of_swin_is_rebuilt() -> None:
    """A window of 2 x 2: differences of places (row, column) in -1…1, three steps each, row by row."""
    names = KeyMap("a model", (Row("a.relative_position_bias_table", "b"),), rebuilds_index=True)
    ours = names.to_ours({"b": torch.zeros(9, 1)})
    assert ours["a.relative_position_index"].tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_key_map__row_that_needs_a_sibling() -> None:
    names = KeyMap("a model", (Row("gated.*", "fc.*", beside="gate"), Row("plain.*", "fc.*")))
    weight = torch.zeros(1)
    assert [*names.to_ours({"fc.weight": weight})] == ["plain.weight"]
    with pytest.raises(KeyError, match="1 weights have no counterpart: gate"):
        names.to_ours({"fc.weight": weight, "gate": weight})
