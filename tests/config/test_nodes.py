"""Walking through a config."""

from mmengine.config import Config

from mmseg_m2f.config.nodes import find_place, hold, is_a, loader_datasets


def test_loader_datasets__below_wrappers_and_each_once() -> None:
    shared = dict(type="B")
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dict(type="R", dataset=dict(type="C", datasets=[dict(type="A"), shared]))),
            val_dataloader=dict(dataset=dict(type="V")),
        )
    )
    cfg.test_dataloader = cfg.val_dataloader
    found = [(path, dataset["type"]) for path, dataset in loader_datasets(cfg)]
    assert found == [
        ("train_dataloader.dataset.dataset.datasets[0]", "A"),
        ("train_dataloader.dataset.dataset.datasets[1]", "B"),
        ("val_dataloader.dataset", "V"),
    ]


def test_find_place__through_dicts_and_lists() -> None:
    cfg = Config(dict(param_scheduler=[dict(end=3)]))
    assert find_place(cfg, "param_scheduler.0.end") == 3
    assert find_place(cfg, "param_scheduler.1.end") is None
    assert find_place(cfg, "model.backbone") is None


def test_is_a__in_any_scope() -> None:
    assert is_a(dict(type="mmdet.RandomCrop"), "RandomCrop")
    assert is_a(dict(type=Config), "Config")
    assert not is_a(dict(), "RandomCrop")


def test_hold__no_new_variables() -> None:
    cfg = Config(dict(lr=1))
    hold(cfg, "lr", 2)
    hold(cfg, "num_queries", 2)
    assert cfg._cfg_dict.to_dict() == dict(lr=2)
