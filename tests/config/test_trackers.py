from pathlib import Path

import pytest
from mmengine.registry import VISBACKENDS

from mmseg_m2f import compat
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.trackers import check_trackers
from tests.command_line import ROOT

LEAF = "mask2former_r18_shapes_debug"
NAMES = sorted(path.stem for path in (ROOT / "configs/_base_/trackers").glob("*.py"))


def backends(tracker: object) -> list[str]:
    cfg = load_config(LEAF, dict(tracker=tracker))
    check_config(cfg)
    return [each["type"] for each in cfg.visualizer.vis_backends]


@pytest.mark.parametrize("name", NAMES)
def test_tracker__writes_beside_the_local_files(name: str) -> None:
    local, added = backends(name)
    assert local == "mmengine.LocalVisBackend"
    assert name in VISBACKENDS.get(added).__name__.lower()


def test_tracker__several_and_one_of_the_user(tmp_path: Path) -> None:
    assert NAMES == ["mlflow", "tensorboard", "wandb"]
    own = tmp_path / "own.py"
    own.write_text("vis_backend = dict(type='mmengine.WandbVisBackend', init_kwargs=dict(mode='online'))\n")
    cfg = load_config(LEAF, dict(tracker=["tensorboard", "wandb", str(own)]))
    added = cfg.visualizer.vis_backends
    assert [each.type for each in added[1:]] == ["mmengine.TensorboardVisBackend", "mmengine.WandbVisBackend"]
    assert added[2].init_kwargs == dict(mode="online")


def test_tracker__mlflow_names_the_run_after_the_config() -> None:
    assert load_config(LEAF, dict(tracker="mlflow")).visualizer.vis_backends[1].run_name == LEAF


def test_tracker__at_the_top_of_a_leaf(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"_base_ = '{ROOT / 'configs/mask2former' / LEAF}.py'\ntracker = 'tensorboard'\n")
    assert load_config(tmp_path / "mine.py").visualizer.vis_backends[1].type == "mmengine.TensorboardVisBackend"


def test_tracker__says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tracker=tensorbord: .*Nearest: tensorboard"):
        load_config(LEAF, dict(tracker="tensorbord"))
    with pytest.raises(ValueError, match=r"tracker=3: expected the name"):
        load_config(LEAF, dict(tracker=3))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="defines no vis_backend"):
        load_config(LEAF, dict(tracker=str(tmp_path / "empty.py")))


@pytest.mark.parametrize("name", NAMES)
def test_check_trackers__names_the_extra_of_a_missing_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = load_config(LEAF, dict(tracker=name))
    monkeypatch.setattr(compat, "is_installed", lambda package: package != name)
    with pytest.raises(TypeError, match=rf"expected the package {name}.*mmseg-m2f\[trackers\]"):
        check_trackers(cfg)
    databases = {"sqlalchemy", "alembic"} if name == "mlflow" else set()
    monkeypatch.setattr(compat, "is_installed", lambda package: package in {name, *databases})
    check_trackers(cfg)
    for package in databases:
        monkeypatch.setattr(compat, "is_installed", lambda each, missing=package: each != missing)
        with pytest.raises(TypeError, match=rf"expected the package {package}"):
            check_trackers(cfg)
