"""What the files of a config assign and read."""

from pathlib import Path

from mmseg_m2f.config.sources import leaves, read_sources, value_before


def test_read_sources__names_reads_constants(tmp_path: Path) -> None:
    (tmp_path / "_base_").mkdir()
    (tmp_path / "_base_/part.py").write_text("width = 8\nmodel = dict(channels=width)\nlr = 1\n")
    (tmp_path / "leaf.py").write_text(
        "_base_ = ['_base_/part.py']\n"
        "a, b = 1, 2\n"
        "c = {'x': a, **_base_.model}\n"
        "model = dict(depth=_base_.lr, other=dict(size=(1, 2), name='{{_base_.width}}'))\n"
    )
    source = read_sources(tmp_path / "leaf.py")
    assert source is not None
    assert set(source.assigned) == {"a", "b", "c", "model"}
    assert "a" in source.own_reads
    assert "b" not in source.own_reads
    assert source.base_reads == {"model", "lr", "width"}
    assert source.constants == {"model.other.size": (1, 2), "model.other.name": "{{_base_.width}}"}
    assert [file.path.name for file in source.family()] == ["leaf.py", "part.py"]
    assert leaves(source) == [source]
    assert value_before(source, "lr") == 1
    assert value_before(source, "none") is None


def test_leaves__configs_between_but_no_file_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text("model = dict(a=1)\n")
    (tmp_path / "between.py").write_text("_base_ = 'flat.py'\n")
    (tmp_path / "leaf.py").write_text("_base_ = './between.py'\n")
    source = read_sources(tmp_path / "leaf.py")
    assert source is not None
    assert [file.path.name for file in leaves(source)] == ["leaf.py", "between.py"]


def test_read_sources__other_formats_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.py").write_text("from mmengine.config import read_base\nwith read_base():\n    from .c import *\n")
    assert read_sources(tmp_path / "a.json") is None
    assert read_sources(tmp_path / "b.py") is None
