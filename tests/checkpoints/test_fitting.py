"""Weights that fit by name and shape, rows of equal classes, and the table of both."""

import pytest
import torch

from mmseg_m2f.checkpoints.fitting import ClassRows, check_fit, fit_table, fit_weights

OWN = {
    "backbone.conv.weight": torch.zeros(2, 3),
    "backbone.bn.num_batches_tracked": torch.tensor(0),
    "decode_head.query_decoder.query_feat.weight": torch.zeros(4, 2),
    "decode_head.query_decoder.cls_embed.weight": torch.zeros(4, 1),  # road, car, bus, "no object"
    "decode_head.query_decoder.cls_embed.bias": torch.zeros(4),
}
STORED = {
    "backbone.conv.weight": torch.full((2, 3), 7.0),
    "backbone.bn.num_batches_tracked": torch.tensor(9),
    "decode_head.query_decoder.query_feat.weight": torch.ones(5, 2),
    "decode_head.query_decoder.cls_embed.weight": torch.tensor([[1.0], [2.0], [3.0]]),  # bus, road, "no object"
    "decode_head.query_decoder.cls_embed.bias": torch.tensor([10.0, 20.0, 30.0]),
    "neck.conv.weight": torch.ones(1),
}
LAYERS = {name for name in OWN if "cls_embed" in name}
CLASSES = ClassRows(["road", "car", "bus"], ["bus", "road"], [1, None, 0])


def test_fit_weights__takes_rows_of_equal_classes():
    fit = fit_weights(OWN, STORED, class_layers=LAYERS, classes=CLASSES)
    assert fit.state["decode_head.query_decoder.cls_embed.weight"].tolist() == [[2.0], [0.0], [1.0], [3.0]]
    assert fit.state["decode_head.query_decoder.cls_embed.bias"].tolist() == [20.0, 0.0, 10.0, 30.0]
    assert fit.state["backbone.conv.weight"].tolist() == [[7.0] * 3] * 2
    assert fit.state["decode_head.query_decoder.query_feat.weight"].tolist() == [[0.0] * 2] * 4
    assert fit.state.keys() == OWN.keys()
    assert fit.initial == {"decode_head.query_decoder.query_feat.weight": "shape (5, 2) there, (4, 2) here"}
    assert fit.unused == {"neck.conv.weight": "the model has none"}
    assert all(not OWN[name].any() for name in OWN)  # nothing is changed in place


def test_fit_weights__without_a_row_for_no_object():
    own = {"conv_seg.weight": torch.zeros(3, 1)}
    stored = {"conv_seg.weight": torch.tensor([[1.0], [2.0], [3.0]])}
    fit = fit_weights(own, stored, class_layers=own, classes=CLASSES)  # the checkpoint has one, the model has none
    assert fit.state["conv_seg.weight"].tolist() == [[2.0], [0.0], [1.0]]
    fit = fit_weights(own, {"conv_seg.weight": torch.ones(7, 1)}, class_layers=own, classes=CLASSES)
    assert fit.initial == {"conv_seg.weight": "7 rows there for 2 classes"}


def test_fit_weights__without_names_or_with_a_new_layer():
    own, stored = {"conv_seg.bias": torch.zeros(3)}, {"conv_seg.bias": torch.ones(3)}
    assert fit_weights(own, stored, class_layers=own).taken == ["conv_seg.bias"]
    assert fit_weights(own, stored, class_layers=own, new_class_layers=True).taken == []
    fit = fit_weights(own, {"conv_seg.bias": torch.ones(2)}, class_layers=own)
    assert fit.initial == {"conv_seg.bias": "shape (2,) there, (3,) here, and class names are not known"}


def test_fit_table__one_line_for_each_part():
    fit = fit_weights(OWN, STORED, class_layers=LAYERS, classes=CLASSES)
    assert fit_table(fit, source="a.pth", layout="ours, mask2former").splitlines() == [
        "Weights of a.pth (ours, mask2former):",
        "  part of the model                    taken  new  why new",
        "  backbone                                 1    0",
        "  decode_head.query_decoder                0    1  query_feat.weight: shape (5, 2) there, (4, 2) here",
        "  decode_head.query_decoder.cls_embed      2    0  rows of 2 of 3 classes by name (road, bus), new: car",
        "  left in the checkpoint, because the model has none: 1",
        "    neck (1)",
    ]


def test_check_fit__refuses_a_checkpoint_that_nothing_fits_of():
    stored = {
        "backbone.conv.weight": torch.ones(9, 9),
        "backbone.bn.num_batches_tracked": STORED["backbone.bn.num_batches_tracked"],
    }
    fit = fit_weights(OWN, stored, class_layers=LAYERS, classes=CLASSES)
    message = (
        r"pretrained=a.pth: none of its 2 weights \(mmseg\) fits .* expected such as backbone.conv.weight \(2, 3\), "
        r".* got backbone.conv.weight \(9, 9\).*Choose a config"
    )
    with pytest.raises(ValueError, match=message):
        check_fit(fit, stored, source="a.pth", layout="mmseg")
    check_fit(fit_weights(OWN, STORED), STORED, source="a.pth", layout="mmseg")
