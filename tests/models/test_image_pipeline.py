import pytest
from mmengine.config import Config

from mmseg_m2f.models.image_pipeline import inner_dataset, split_pipeline, use_upstream_loading

READ_IMAGE = dict(type="mmengine.LoadImageFromFile", imdecode_backend="pillow")
PIPELINE = [
    dict(type="mmseg_m2f.CheckedLoading", transforms=[READ_IMAGE]),
    dict(type="mmengine.Resize", scale=(8, 8)),
    dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmseg_m2f.LoadLabelMap")]),
    dict(type="mmseg_m2f.SegmentsToObjects"),
    dict(type="mmseg.PackSegInputs"),
]
KEPT = [PIPELINE[1], PIPELINE[4]]


def config_of(pipeline: list[dict]) -> Config:
    dataset = dict(type="mmengine.RepeatDataset", dataset=dict(type="mmseg.BaseSegDataset", pipeline=pipeline))
    return Config(dict(test_dataloader=dict(dataset=dataset)))


def test_split_pipeline__leaves_out_annotations() -> None:
    assert split_pipeline(PIPELINE) == (READ_IMAGE, KEPT)


@pytest.mark.parametrize("name", ["mmseg_m2f.LoadBands", "LoadSingleRSImageFromFile", "LoadBiomedicalImageFromFile"])
def test_split_pipeline__keeps_other_readers_of_images(name: str) -> None:
    reader = dict(type=name)
    assert split_pipeline([reader, *PIPELINE[1:]]) == (reader, KEPT)


def test_split_pipeline__of_a_dataset_that_makes_its_images() -> None:
    assert split_pipeline(KEPT) == (dict(type="mmengine.LoadImageFromFile"), KEPT)


def test_use_upstream_loading__starts_with_the_name_that_upstream_looks_for() -> None:
    cfg = config_of(PIPELINE)
    for _ in range(2):  # the second call changes nothing
        assert use_upstream_loading(cfg) is cfg
        expected = [dict(READ_IMAGE, type="LoadImageFromFile"), *KEPT]
        assert inner_dataset(cfg.test_dataloader.dataset)["pipeline"] == expected
        assert cfg.test_pipeline == expected
    cfg.test_pipeline[0].type = "LoadImageFromNDArray"  # as mmseg does
    assert inner_dataset(cfg.test_dataloader.dataset)["pipeline"] == expected


def test_use_upstream_loading__without_a_test_dataloader() -> None:
    assert use_upstream_loading(Config(dict(model=dict(type="a")))).to_dict() == dict(model=dict(type="a"))
