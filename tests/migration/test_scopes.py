import pytest
from mmseg.models import ResNet

from mmseg_m2f.migration.scopes import Scopes


@pytest.mark.parametrize(
    ("default", "given", "expected"),
    [
        ("mmseg", "ResNet", "mmseg.ResNet"),
        ("mmdet", "ResNet", "mmdet.ResNet"),
        ("mmseg", "mmdet.ResNet", "mmdet.ResNet"),
        ("mmseg", ResNet, "mmseg.ResNet"),
        ("mmseg", "LoadImageFromFile", "mmengine.LoadImageFromFile"),
        ("mmseg", "NothingSoCalled", "NothingSoCalled"),
    ],
)
def test_scopes__name(default: str, given: object, expected: str) -> None:
    assert Scopes(default).name(given) == expected


def test_scopes__layers_of_the_root_stay_as_they_are_written() -> None:
    given = dict(type="ResNet", norm_cfg=dict(type="BN"), stages=(dict(type="ResNet"), 3))
    expected = dict(type="mmseg.ResNet", norm_cfg=dict(type="BN"), stages=(dict(type="mmseg.ResNet"), 3))
    assert Scopes("mmseg", keep_root=True).apply(given) == expected
    assert given["type"] == "ResNet"  # copied


def test_scopes__a_part_may_have_a_scope_of_its_own() -> None:
    node = dict(type="ResNet", _scope_="mmdet", depth=18)
    assert Scopes("mmseg").apply(node) == dict(type="mmdet.ResNet", depth=18)


def test_scopes__arguments_that_name_a_class() -> None:
    resize = Scopes("mmdet").apply(dict(type="RandomChoiceResize", scales=[(1, 1)]))
    assert resize == dict(type="mmengine.RandomChoiceResize", scales=[(1, 1)], resize_type="mmdet.Resize")


def test_scopes__types_of_other_libraries_stay() -> None:
    node = dict(type="Albu", transforms=[dict(type="Blur")])
    assert Scopes("mmdet").apply(node) == dict(type="mmdet.Albu", transforms=[dict(type="Blur")])
