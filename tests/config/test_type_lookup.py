"""What a config's `type` stands for, and which arguments it takes."""

import functools

import pytest
import torch
from mmengine.utils import deprecated_api_warning

from mmseg_m2f.config.type_lookup import accepted_arguments, find_types, missing_package, nearest_types


class Base:
    def __init__(self, width: int, *, depth: int = 1) -> None: ...


class Forwards(Base):
    def __init__(self, colour: str, **kwargs: int) -> None:
        super().__init__(**kwargs)


class Swallows(Base):
    def __init__(self, colour: str, **kwargs: int) -> None:
        super().__init__(width=1)
        self.rest = kwargs


class Skips(Forwards):
    def __init__(self, **kwargs: int) -> None:
        super(Forwards, self).__init__(**kwargs)


class Renamed:
    @deprecated_api_warning({"old_width": "width"}, cls_name="Renamed")
    def __init__(self, width: int = 1) -> None: ...


class Module(torch.nn.Module):
    def __init__(self, channels: int, **kwargs: int) -> None:
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (Base, {"width", "depth"}),
        (Forwards, {"colour", "width", "depth"}),
        (Swallows, None),
        (Skips, None),
        (Renamed, {"width", "old_width"}),
        (Module, {"channels"}),
        (functools.partial(Base, 3), {"width", "depth"}),
        (lambda a, *, b=1: a, {"a", "b"}),
        (lambda a, **rest: a, None),
    ],
)
def test_accepted_arguments__follows_kwargs_to_the_base(target: type, names: set[str] | None) -> None:
    assert accepted_arguments(target) == names


@pytest.mark.parametrize(
    ("name", "scope"),
    [("mmseg.FCNHead", "mmengine"), ("FCNHead", "mmseg"), ("mmseg.models.FCNHead", "mmengine")],
)
def test_find_types__knows_scope_default_scope_and_import_path(name: str, scope: str) -> None:
    assert [f"{found.__module__}.{found.__name__}" for found in find_types(name, scope=scope)] == [
        "mmseg.models.decode_heads.fcn_head.FCNHead"
    ]


def test_find_types__finds_the_root_from_any_scope() -> None:
    assert find_types("mmengine.AdamW", scope="mmseg") == find_types("AdamW", scope="mmdet") == [torch.optim.AdamW]


@pytest.mark.parametrize("name", ["FCNHead", "mmseg.FCNHaed", "nowhere.FCNHead"])
def test_find_types__is_empty_for_an_unknown_name(name: str) -> None:
    assert find_types(name, scope="mmengine") == []


def test_nearest_types__ignores_case_and_scope() -> None:
    assert nearest_types("fcnhead", scopes=["mmseg"])[0] == "mmseg.FCNHead"


@pytest.mark.parametrize(("name", "command"), [("mmpose.X", "pip install mmpose"), ("mmseg.X", None), ("X", None)])
def test_missing_package__names_the_command(name: str, command: str | None) -> None:
    assert missing_package(name) == command
