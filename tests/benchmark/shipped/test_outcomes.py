import pytest

from mmseg_m2f.benchmark.shipped import outcomes
from mmseg_m2f.benchmark.shipped.catalogue import Shipped
from mmseg_m2f.benchmark.shipped.trial import Limits


@pytest.fixture
def tried(monkeypatch):
    """The configs that were tried; nothing is built."""
    files = []

    def try_config(file, log, limits):
        files.append(file.name)
        if file.name == "stop.py":
            raise KeyboardInterrupt
        return dict(build="", step="too large", predict="")

    monkeypatch.setattr(outcomes, "try_config", try_config)
    monkeypatch.setattr(outcomes, "import_libraries", lambda: None)
    return files


def shipped(folder, name, text):
    (folder / name).write_text(text)
    return Shipped("mmdet", f"a/{name}", folder / name)


def test_count__tries_equal_models_once_and_goes_on(tmp_path, tried):
    configs = [
        shipped(tmp_path, "a.py", "model = dict(type='A')\nlr = 1"),
        shipped(tmp_path, "b.py", "model = dict(type='A')\nlr = 2"),
        shipped(tmp_path, "broken.py", "_base_ = './missing.py'"),
        shipped(tmp_path, "stop.py", "model = dict(type='B')"),
    ]
    said = []
    with pytest.raises(KeyboardInterrupt):
        outcomes.count(configs, tmp_path / "out", Limits(), say=said.append)
    assert tried == ["a.py", "broken.py", "stop.py"]
    assert said[1] == "[2/4] mmdet/a/b.py: as before, step: too large"
    counted = outcomes.count(configs[:3], tmp_path / "out", Limits(), say=said.append)
    assert tried == ["a.py", "broken.py", "stop.py"]
    assert list(counted) == ["mmdet/a/a.py", "mmdet/a/b.py", "mmdet/a/broken.py"]


def test_count__refuses_a_folder_of_other_limits(tmp_path, tried):
    config = shipped(tmp_path, "a.py", "model = dict(type='A')")
    outcomes.count([config], tmp_path / "out", Limits(), say=str)
    with pytest.raises(ValueError, match="expected a count under .*'side': 64.*Give another --out"):
        outcomes.count([config], tmp_path / "out", Limits(side=64), say=str)
