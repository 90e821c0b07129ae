"""Faults that an export can have are planted, and the gate refuses each."""

from contextlib import nullcontext
from unittest import mock

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from mmseg_m2f.export import export_gate
from mmseg_m2f.export.export_gate import Comparison, check_operators, compare, is_empty_check, judge, smooth_images
from mmseg_m2f.export.programs import Shape, trace
from mmseg_m2f.layers import transformer
from mmseg_m2f.layers.position_encoding import sine_position_encoding
from mmseg_m2f.models.pixel_decoders import deformable
from mmseg_m2f.models.pixel_decoders.deformable import DeformablePixelDecoder
from mmseg_m2f.structures import FeatureSpec
from tests.random_weights import shake
from tests.runtime.small_files import write_file


class PixelMaps(nn.Module):
    """A deformable pixel decoder on maps that are cut out of the images: small, but with levels and positions."""

    def __init__(self, *, bakes: bool = False) -> None:
        super().__init__()
        self.bakes = bakes
        spec = FeatureSpec((8, 8, 8, 8), (4, 8, 16, 32))
        self.decoder = DeformablePixelDecoder(
            spec, channels=8, num_levels=3, num_layers=1, num_heads=2, feedforward_channels=16, norm_groups=2
        )
        self.stem = nn.Conv2d(3, 8, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = [nn.functional.avg_pool2d(self.stem(images), stride, ceil_mode=True) for stride in (4, 8, 16, 32)]
        found = self.decoder(maps)
        features = found.mask_features
        if self.bakes:  # as `new_tensor` of sizes does: the number of the example stays
            features = features * (1 + 0.01 * torch.tensor([int(images.shape[-1]) / 100]))
        return dict(mask_features=features, class_logits=found.memory.flatten(2).transpose(1, 2))


@pytest.fixture
def model() -> PixelMaps:
    torch.manual_seed(0)
    model = PixelMaps().eval()
    shake(model)
    return model


@torch.no_grad()
def compare_program(model: nn.Module) -> list[Comparison]:
    traced = trace(model, Shape())
    images = [smooth_images(*case) for case in Shape().cases()]
    return [compare(str(tuple(x.shape)), model(x), traced(dict(images=x))) for x in images]


def test_gate__accepts_what_is_equal(model):
    comparisons = compare_program(model)
    assert len(comparisons) == 5
    judge(comparisons)
    assert max(max(each.errors.values()) for each in comparisons) < 1e-5


def test_gate__catches_swapped_levels(model):
    flatten = transformer.flatten_maps
    with mock.patch.object(deformable, "flatten_maps", lambda maps: flatten(maps[::-1])):
        traced = trace(model, Shape())
    images = smooth_images(2, 100, 150)
    with torch.no_grad(), pytest.raises(ValueError, match="mask_features differs by .*was not written"):
        judge([compare("2 x 100 x 150", model(images), traced(dict(images=images)))])


def test_gate__catches_wrong_positions(model):
    def turned(size: tuple[int, int], channels: int, like: Tensor) -> Tensor:
        return sine_position_encoding(size, channels, like).flip(0)  # columns before rows

    with mock.patch.object(deformable, "sine_position_encoding", turned):
        traced = trace(model, Shape())
    images = smooth_images(2, 100, 150)
    with torch.no_grad(), pytest.raises(ValueError, match="differs by"):
        judge([compare("2 x 100 x 150", model(images), traced(dict(images=images)))])


@torch.no_grad()
def test_gate__catches_baked_sizes(model):
    """A constant of the example is right at its size and wrong at others."""
    wrong = PixelMaps(bakes=True).eval()
    wrong.load_state_dict(model.state_dict())
    images = [smooth_images(2, 100, 150), smooth_images(1, 64, 64)]
    scale = 1 + 0.01 * torch.tensor([1.5])  # what the example of 150 columns leaves in the program

    def baked(x: Tensor) -> dict[str, Tensor]:
        found = model(x)
        return found | dict(mask_features=found["mask_features"] * scale)

    same, other = (compare(str(x.shape), wrong(x), baked(x)) for x in images)
    judge([same])
    with pytest.raises(ValueError, match="mask_features differs"):
        judge([same, other])


def test_gate__programs_that_would_fix_a_size_are_refused(model):
    model.bakes = True
    with pytest.raises(ValueError, match=r"torch.export: expected a model whose operators do not depend on"):
        trace(model, Shape())


def test_check_operators__accepts_standard_ones_of_the_version_alone(tmp_path):
    path = write_file(tmp_path / "model.onnx")
    check_operators(path, opset=18)
    with pytest.raises(ValueError, match="standard operators of version 19 alone"):
        check_operators(path, opset=19)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [
                helper.make_node("RandomNormalLike", ["images"], ["noise"]),
                helper.make_node("Add", ["images", "noise"], ["scores"]),
            ],
            r"random operators \(RandomNormalLike\)",
        ),
        (
            [helper.make_node("Inverse", ["images"], ["scores"], domain="com.microsoft")],
            r"outside of the standard domain \(com.microsoft::Inverse\)",
        ),
    ],
)
def test_check_operators__refuses_others(tmp_path, nodes, message):
    path = write_file(tmp_path / "model.onnx", nodes=nodes)
    with pytest.raises(ValueError, match=f"{message}.*was not written"):
        check_operators(path, opset=18)


def test_check_operators__looks_into_branches(tmp_path):
    noise = helper.make_node("RandomNormal", [], ["out"], shape=[1])
    branch = helper.make_graph([noise], "branch", [], [helper.make_tensor_value_info("out", 1, [1])])
    condition = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("", 9, [], [True]))
    choice = helper.make_node("If", ["yes"], ["scores"], then_branch=branch, else_branch=branch)
    path = write_file(tmp_path / "model.onnx", nodes=[condition, choice])
    with pytest.raises(ValueError, match="RandomNormal"):
        check_operators(path, opset=18)


def test_check_operators__refuses_another_version_and_functions(tmp_path):
    path = write_file(tmp_path / "model.onnx", opset=19)
    with pytest.raises(ValueError, match="standard operators of version 18 alone, got the versions"):
        check_operators(path, opset=18)
    model = onnx.load(write_file(tmp_path / "model.onnx"))
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Own", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    onnx.save(model, str(path))
    with pytest.raises(ValueError, match=r"local functions \(Own\)"):
        check_operators(path, opset=18)


@pytest.mark.parametrize(
    ("bits", "margin", "labels", "passes"),
    [((9, 1), 4e-7, 0.0, True), ((9, 0), 0.0, 0.0, False), ((9, 1), 0.3, 0.0, False), ((9, 1), 4e-7, 0.5, False)],
)
def test_judge__a_file_without_stages_has_the_bits_of_that_with_stages(bits, margin, labels, passes):
    alone = Comparison("file", errors=dict(mask_logits=1.4e-4), label_disagreement=labels)
    with pytest.raises(ValueError, match="mask_logits differs by 1.4e-04"):
        judge([Comparison("file", errors=dict(mask_logits=1.4e-4))])
    judged = alone.with_bits_of(Comparison("with stages", bits=bits, margin=margin))
    assert judged.of_stages
    with nullcontext() if passes else pytest.raises(ValueError, match=r"^The exported program does not compute"):
        judge([judged])


def test_compare__attention_bits_excuse_what_follows_only_near_zero():
    logits = torch.tensor([[0.3, 5e-5, -0.4]])
    expected = dict(attention_0=logits, mask_logits=torch.zeros(1, 1, 2, 2), features_0=torch.zeros(1, 2))
    found = expected | dict(attention_0=logits * torch.tensor([1, -1, 1]), mask_logits=torch.full((1, 1, 2, 2), 1e-3))
    comparison = compare("case", expected, found)
    assert comparison.bits == (3, 1)
    judge([comparison])
    with pytest.raises(ValueError, match="features_0 differs"):
        judge([compare("case", expected, found | dict(features_0=torch.full((1, 2), 1e-3)))])
    far = compare("case", expected, found | dict(attention_0=logits * torch.tensor([-1, 1, 1])))
    with pytest.raises(ValueError, match="attention bits differ where logits are up to 3.0e-01"):
        judge([far])


def test_compare__bits_behind_differing_ones_may_differ_more_in_the_same_image():
    first, second = torch.tensor([[0.3, 5e-5], [0.3, 5e-5]]), torch.tensor([[0.01, 0.2], [0.01, 0.2]])
    expected = dict(attention_0=first, attention_1=second)
    flip_first = first * torch.tensor([[1, -1], [1, 1]])
    behind = compare("case", expected, dict(attention_0=flip_first, attention_1=second * torch.tensor([[-1], [1]])))
    assert (behind.bits, behind.margin, behind.margin_behind) == ((8, 3), pytest.approx(5e-5), pytest.approx(0.2))
    with pytest.raises(ValueError, match=r"up to 2.0e-01 from 0, expected below 1e-01\."):
        judge([behind])
    near = second * torch.tensor([[-1, 1], [1, 1]])
    judge([compare("case", expected, dict(attention_0=flip_first, attention_1=near))])
    for found in (dict(attention_0=first, attention_1=near), dict(attention_0=flip_first, attention_1=near.flip(0))):
        with pytest.raises(ValueError, match=r"up to 1.0e-02 from 0, expected below 1e-04\."):
            judge([compare("case", expected, found)])


@pytest.mark.parametrize(("output", "error"), [("class_logits", 9.0), ("class_logits", float("inf")), ("boxes", 1e-3)])
def test_judge__attention_bits_do_not_excuse_everything(output, error):
    judge([Comparison("case", errors=dict(class_logits=1e-3), bits=(9, 1), margin=1e-6)])
    with pytest.raises(ValueError, match=f"{output} differs by"):
        judge([Comparison("case", errors={output: error}, bits=(9, 1), margin=1e-6)])


def test_compare__outputs_that_are_absent_are_faults_but_for_the_stages():
    expected = dict(features_0=torch.zeros(1), mask_features=torch.zeros(1), attention_0=torch.zeros(1, 1))
    judge([compare("case", expected, {})])
    for output in ("class_logits", "object_masks", "labels"):
        with pytest.raises(ValueError, match=f"{output} differs by inf"):
            judge([compare("case", expected | {output: torch.zeros(1, 1)}, {})])


def test_compare__labels_count_even_where_logits_are_close():
    scores = torch.tensor([[[[1.0, 2.0]], [[1.0 + 4e-5, 0.0]]]])
    comparison = compare("case", dict(scores=scores), dict(scores=scores + torch.tensor([5e-5, 0])[:, None, None]))
    assert comparison.classes == 2
    with pytest.raises(ValueError, match="50.00% of the labels differ"):
        judge([comparison])


def test_compare__objects_of_equal_scores_may_change_places():
    masks = torch.zeros(1, 2, 100, 200, dtype=torch.bool)
    masks[0, 0, :2], masks[0, 1, 5:] = True, True
    boxes = torch.tensor([[[0.0, 0, 200, 2], [0, 5, 200, 100]]])
    expected = dict(
        object_scores=torch.tensor([[0.5, 0.5 - 1e-6]]),
        object_labels=torch.tensor([[0, 3]]),
        object_boxes=boxes,
        object_masks=masks,
    )
    found = {name: value.flip(1) for name, value in expected.items()} | dict(object_scores=expected["object_scores"])
    judge([compare("case", expected, found)])
    found["object_masks"] = masks.flip(1)
    found["object_masks"][0, 1, 2, 7] = True  # one of 40,000 pixels, which moves the box
    found["object_boxes"] = torch.tensor([[[0.0, 5, 200, 100], [0, 0, 200, 3]]])
    judge([compare("case", expected, found)])
    found["object_labels"] = torch.tensor([[3, 1]])
    with pytest.raises(ValueError, match="50.00% of the labels differ"):
        judge([compare("case", expected, found)])


def test_compare__shapes_and_nan_are_faults():
    x = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="scores differs by inf"):
        judge([compare("case", dict(scores=x), dict(scores=x[..., :2]))])
    with pytest.raises(ValueError, match="scores differs by inf"):
        judge([compare("case", dict(scores=x), dict(scores=x * float("nan")))])


def test_is_empty_check__needs_two_classes():
    one, two = Comparison("one", classes=1), Comparison("two", classes=2)
    assert is_empty_check([one])
    assert not is_empty_check([one, two])


def test_gate__limits_are_those_of_the_documentation():
    assert (export_gate.TOLERANCE, export_gate.BIT_MARGIN, export_gate.LABEL_TOLERANCE) == (1e-4, 1e-4, 1e-4)
