import pytest

from mmseg_m2f.benchmark.shipped import outcomes
from mmseg_m2f.benchmark.shipped.catalogue import Shipped
from mmseg_m2f.benchmark.shipped.processes import Limits, StageResult


@pytest.fixture
def tried(monkeypatch):
    """What was built and stepped; nothing is done. `broken` cannot be built, `stop` interrupts, `x8` has 8 weights."""
    done = []

    def try_building(file, log, limits):
        done.append(f"build {file.name}")
        if file.name == "stop.py":
            raise KeyboardInterrupt
        weights = int(file.stem.rpartition("x")[2] or 0) if "x" in file.stem else 100
        return StageResult("no package" if file.name == "broken.py" else ""), weights

    def try_config(file, log, limits):
        done.append(f"step {file.name}")
        return dict(build=StageResult(), step=StageResult("too large", ("nms",)), predict=StageResult())

    monkeypatch.setattr(outcomes, "try_building", try_building)
    monkeypatch.setattr(outcomes, "try_config", try_config)
    monkeypatch.setattr(outcomes, "import_libraries", lambda: None)
    return done


def shipped(folder, name, text):
    (folder / name).write_text(text)
    return Shipped("mmdet", f"a/{name}", folder / name)


@pytest.fixture
def configs(tmp_path):
    return [
        shipped(tmp_path, "large_x9.py", "model = dict(type='A', depth=9)"),
        shipped(tmp_path, "same_x9.py", "model = dict(type='A', depth=9)\nlr = 2"),
        shipped(tmp_path, "small_x3.py", "model = dict(type='A', depth=3)"),
        shipped(tmp_path, "broken.py", "_base_ = './missing.py'"),
        shipped(tmp_path, "alone.py", "model = dict(type='B')"),
    ]


def test_count__builds_every_model_and_steps_with_the_smallest_of_each_kind(tmp_path, configs, tried):
    said = []
    counted = outcomes.count(configs[::-1], tmp_path / "out", Limits(), say=said.append)
    assert tried == [
        *("build small_x3.py", "build same_x9.py", "step small_x3.py"),  # the kind of three configs comes first
        *("build alone.py", "step alone.py"),
        "build broken.py",
    ]
    assert said[0] == "[1/3] mmdet/a/small_x3.py: 2 of 2 models build; step of mmdet/a/small_x3.py: too large"
    assert said[2] == "[3/3] mmdet/a/broken.py: 0 of 1 models build; no package"
    assert counted["mmdet/a/same_x9.py"].like == "mmdet/a/small_x3.py"
    assert counted["mmdet/a/same_x9.py"].results["step"] == StageResult("too large", ("nms",))
    assert counted["mmdet/a/small_x3.py"].like == ""
    assert counted["mmdet/a/broken.py"].results == dict(build=StageResult("no package"))


def test_count__goes_on_after_an_interruption(tmp_path, configs, tried):
    stop = shipped(tmp_path, "stop.py", "model = dict(type='C')")
    with pytest.raises(KeyboardInterrupt):
        outcomes.count([*configs[:2], stop, *configs[2:]], tmp_path / "out", Limits(), say=str)
    assert tried == ["build large_x9.py", "build small_x3.py", "step small_x3.py", "build stop.py"]
    known = outcomes.known_outcomes(configs, tmp_path / "out", Limits())
    assert list(known) == [f"mmdet/a/{name}.py" for name in ("large_x9", "same_x9", "small_x3")]
    tried.clear()
    outcomes.count(configs, tmp_path / "out", Limits(), say=str)
    assert "build large_x9.py" not in tried
    tried.clear()
    outcomes.count(configs, tmp_path / "out", Limits(), every_model=True, say=str)
    assert tried == ["step large_x9.py"]


def test_count__refuses_a_folder_of_other_limits(tmp_path, configs, tried):
    outcomes.count(configs[:1], tmp_path / "out", Limits(), say=str)
    with pytest.raises(ValueError, match=r"expected a count under .*'sides': \[32\].*Give another --out"):
        outcomes.count(configs[:1], tmp_path / "out", Limits(sides=(32,)), say=str)
