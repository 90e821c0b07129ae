import pytest
from mmengine.config import Config

from mmseg_m2f.benchmark.shipped.catalogue import find_shipped, kind_key, model_key, shipped_configs


def test_shipped_configs__are_those_of_the_packages_without_ingredients():
    configs = {config.name: config for config in shipped_configs()}
    assert {name.partition("/")[0] for name in configs} == {"mmseg", "mmdet"}
    assert configs["mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"].family == "mmdet/mask_rcnn"
    assert all(config.file.is_file() and "_base_" not in config.path for config in configs.values())
    families = shipped_configs(one_per_family=True)
    assert sorted({config.family for config in configs.values()}) == sorted(config.family for config in families)


def test_shipped_configs__other_libraries_are_refused():
    with pytest.raises(ValueError, match="expected one of mmseg, mmdet, got torch"):
        shipped_configs(["torch"])


def test_find_shipped__one_config_or_an_error():
    assert find_shipped("mmdet", "dino/dino-4scale_r50_8xb2-12e_coco.py").is_file()
    with pytest.raises(FileNotFoundError, match=r"mmseg: expected its config none/none\.py in .* Install a version"):
        find_shipped("mmseg", "none/none.py")


def test_model_key__tells_models_apart_and_schedules_not():
    model = dict(type="A", channels=(1, 2))
    key = model_key(Config(dict(model=model, max_iters=1)))
    assert key == model_key(Config(dict(model=model, max_iters=2)))
    assert key != model_key(Config(dict(model=dict(model, channels=(1, 3)))))
    assert key != model_key(Config(dict(model=model, default_scope="mmdet")))


def test_kind_key__tells_types_apart_and_sizes_not():
    def key(**model):
        return kind_key(Config(dict(model=model)))

    assert key(type="A", neck=dict(type="B", channels=1)) == key(type="A", neck=dict(channels=2, type="B"))
    assert key(type="A", heads=[dict(type="B"), dict(type="B")]) == key(type="A", heads=[dict(type="B")])
    assert key(type="A", neck=dict(type="B")) != key(type="A", neck=dict(type="C"))
