import importlib
import importlib.util
import os
import pickle
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmseg_m2f import compat

ROOT = Path(__file__).parents[1]


def run_python(code: str, *, fakes: Path | None = None) -> str:
    """Output of a fresh interpreter. With `fakes`, it sees only that folder and this package, nothing installed."""
    path = [str(ROOT)] if fakes is None else [str(fakes), str(ROOT)]
    command = [sys.executable, *(["-S"] if fakes else []), "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_files(folder: Path, **sources: str) -> Path:
    """Makes Python files; `__` in a name stands for a folder: `mmcv___ext` is `mmcv/_ext.py`."""
    for name, source in sources.items():
        file = folder / (name.replace("__", "/", 1) + ".py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    return folder


def write_distribution(folder: Path, name: str, version: str) -> None:
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


# --- the package itself


def test_import__is_fast_and_loads_no_framework() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import mmseg_m2f; "
        "print(time.perf_counter() - start, *{'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg'} & set(sys.modules))"
    )
    seconds, *frameworks = run_python(code).split()
    assert frameworks == []
    assert float(seconds) < 0.5


@pytest.mark.smoke
def test_import__opens_mmdet_and_mmseg_and_timm() -> None:
    code = "import mmseg_m2f, mmdet.models, mmseg.models; print(mmdet.models.DETR.__name__)"
    if importlib.util.find_spec("timm"):
        code += "; import timm, torchvision.transforms"
    assert run_python(code).endswith("DETR")


def test_install__twice_changes_nothing() -> None:
    before = list(sys.meta_path)
    compat.install()
    assert sys.meta_path == before


# --- mmcv._ext


def test_missing_extension__has_every_operator_but_no_special_name(tmp_path: Path) -> None:
    fakes = write_files(tmp_path, mmcv____init__="")
    code = (
        "import mmseg_m2f, importlib.util, mmcv._ext as ext; "
        "print(callable(ext.roi_align_forward), hasattr(ext, '__path__'), "
        "importlib.util.find_spec('mmcv._ext').name, ext.__spec__.name)"
    )
    assert run_python(code, fakes=fakes) == "True False mmcv._ext mmcv._ext"


@pytest.mark.parametrize(
    ("distribution", "version", "remedy"),
    [
        ("onedl-mmcv", "2.3.6", "--no-binary onedl-mmcv onedl-mmcv==2.3.6"),
        ("mmcv-lite", "2.1.0", "pip uninstall mmcv-lite"),
    ],
)
def test_missing_operator__says_what_lacks_and_how_to_get_it(
    tmp_path: Path, distribution: str, version: str, remedy: str
) -> None:
    fakes = write_files(tmp_path, mmcv____init__="")
    write_distribution(fakes, distribution, version)
    code = (
        "import mmseg_m2f\nfrom mmseg_m2f.compat import missing_operator_message\n"
        "print(missing_operator_message('border_align_forward'))"
    )
    message = run_python(code, fakes=fakes)
    assert message.startswith("mmcv._ext.border_align_forward: expected mmcv with its compiled operators")
    assert f"got {distribution} {version} without them" in message
    assert remedy in message


def test_served_operator__works_and_says_so_once(caplog) -> None:
    compat.log_served.cache_clear()
    extension = compat._StandInExtension("mmcv._ext")
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0]])
    with caplog.at_level("INFO", logger="mmseg_m2f"):
        for _ in range(2):
            assert extension.nms(boxes, torch.tensor([0.1, 0.2]), iou_threshold=0.5, offset=0).tolist() == [1]
    assert caplog.messages == [
        "mmcv._ext.nms: mmcv has no compiled operators; PyTorch computes it (mmseg_m2f.layers.mmcv_operators)."
    ]


def test_missing_operator__raises_when_called() -> None:
    with pytest.raises(RuntimeError, match=r"mmcv\._ext\.border_align_forward: expected mmcv with its compiled"):
        compat._StandInExtension("mmcv._ext").border_align_forward()


def test_is_served__asks_the_installed_extension(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mmcv._ext", compat._StandInExtension("mmcv._ext"))
    assert [compat.is_served(name) for name in ("nms", "border_align_forward")] == [True, False]
    monkeypatch.setitem(sys.modules, "mmcv._ext", SimpleNamespace(border_align_forward=print))
    assert [compat.is_served(name) for name in ("nms", "border_align_forward")] == [False, True]


def test_compiled_extension__is_used_where_there_is_one(tmp_path: Path) -> None:
    fakes = write_files(tmp_path, mmcv____init__="", mmcv___ext="nms = 'compiled'")
    assert run_python("import mmseg_m2f, mmcv._ext; print(mmcv._ext.nms)", fakes=fakes) == "compiled"


def test_compiled_extension__that_does_not_load_is_not_hidden(tmp_path: Path) -> None:
    fakes = write_files(tmp_path, mmcv____init__="", mmcv___ext="raise ImportError('undefined symbol')")
    code = "import mmseg_m2f\ntry:\n    import mmcv._ext\nexcept ImportError as error:\n    print(error)"
    assert run_python(code, fakes=fakes) == "undefined symbol"


# --- torchvision


@pytest.mark.parametrize("loads", [True, False])
def test_torchvision__registers_its_operators_only_if_they_load(tmp_path: Path, loads: bool) -> None:
    fakes = write_files(
        tmp_path,
        torchvision____init__="from torchvision import extension, _meta_registrations",
        torchvision__extension=f"def _has_ops(): return {loads}",
        torchvision___meta_registrations="registered = True",
    )
    code = (
        "import mmseg_m2f, torchvision; print(hasattr(torchvision._meta_registrations, 'registered'), "
        "torchvision._meta_registrations.__spec__.loader.get_source('torchvision._meta_registrations'))"
    )
    assert run_python(code, fakes=fakes) == f"{loads} registered = True"


def test_torchvision__looking_for_it_does_not_import_it(tmp_path: Path) -> None:
    fakes = write_files(tmp_path, torchvision____init__="raise RuntimeError")
    code = (
        "import sys, importlib.util, mmseg_m2f; importlib.util.find_spec('torchvision'); "
        "print('torchvision' in sys.modules, 'torch' in sys.modules)"
    )
    assert run_python(code, fakes=fakes) == "False False"


# --- Python 3.14


def test_find_loader__is_there_on_pythons_without_it(tmp_path: Path) -> None:
    code = (
        "import pkgutil; vars(pkgutil).pop('find_loader', None); import mmseg_m2f; "
        "print(pkgutil.find_loader('json').name, pkgutil.find_loader('no_such_module'))"
    )
    assert run_python(code, fakes=tmp_path) == "json None"


# --- missing packages


@pytest.mark.parametrize(
    ("installed", "command"),
    [
        (("onedl-mmengine", "0.10.12"), 'pip install -e ".[onedl]" -c constraints.txt'),
        (("mmengine", "0.10.7"), 'pip install -e ".[original]" -c constraints-original.txt'),
    ],
)
def test_missing_packages__are_named_with_the_extra(tmp_path: Path, installed: tuple[str, str], command: str) -> None:
    write_distribution(tmp_path, *installed)
    write_files(tmp_path, mmengine____init__="", mmcv____init__="")
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n    import mmseg_m2f\n"
        "print(*(f'{w.message} at {w.filename}' for w in caught))"
    )
    message = run_python(code, fakes=tmp_path)
    assert "expected the packages mmengine, mmcv, mmseg, got an environment without mmseg (" in message
    assert f"({' '.join(installed)})" in message
    assert command in message


# --- checkpoints


@pytest.fixture
def safe_globals() -> Iterator[None]:
    """Starts with none of ours, and leaves none behind."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


@pytest.mark.smoke
@pytest.mark.usefixtures("safe_globals")
def test_safe_globals__open_what_mmengine_saves(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer

    history = HistoryBuffer([0.5, 0.25], [1, 1])
    saved = {"history": history, "metrics": {"mIoU": np.float64(0.75), "best": np.float32(0.5), "n": np.int64(3)}}
    torch.save(saved, tmp_path / "checkpoint.pth")
    with pytest.raises(pickle.UnpicklingError, match="HistoryBuffer"):
        torch.load(tmp_path / "checkpoint.pth", weights_only=True)

    compat.allow_safe_checkpoint_globals()
    loaded = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    assert loaded["history"].data[0].tolist() == [0.5, 0.25]
    assert loaded["history"].mean() == 0.375
    assert loaded["metrics"] == saved["metrics"]


class LooksUpTheConstructor:
    def __reduce__(self) -> tuple[object, ...]:
        from mmengine.logging import HistoryBuffer

        return getattr, (HistoryBuffer, "__init__")


@pytest.mark.usefixtures("safe_globals")
def test_safe_globals__open_nothing_else(tmp_path: Path) -> None:
    compat.allow_safe_checkpoint_globals()
    torch.save(LooksUpTheConstructor(), tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="expected a look-up of a statistic of HistoryBuffer, got '__init__'"):
        torch.load(tmp_path / "checkpoint.pth", weights_only=True)


@pytest.mark.usefixtures("safe_globals")
def test_safe_globals__twice_is_once() -> None:
    compat.allow_safe_checkpoint_globals()
    once = set(torch.serialization.get_safe_globals())
    compat.allow_safe_checkpoint_globals()
    assert set(torch.serialization.get_safe_globals()) == once


def test_ensure_home__a_process_without_one_gets_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("HOME", str(tmp_path))
    compat.ensure_home()
    assert Path.home() == tmp_path

    def unknown(uid: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.warns(UserWarning, match="No home folder.*Set HOME"):
        compat.ensure_home()
    assert Path.home().parent == tmp_path
    assert Path.home().stat().st_mode & 0o077 == 0


def test_keep_config_layouts__lays_a_text_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    interface = importlib.import_module("yapf.yapflib.yapf_api")
    monkeypatch.setattr(interface, "FormatCode", lambda text, **_: calls.append(text) or (text, False))
    compat.keep_config_layouts()
    compat.keep_config_layouts()
    cfg = Config(dict(a=1))
    texts = [cfg.pretty_text, cfg.pretty_text]
    cfg.a = 2
    texts.append(cfg.pretty_text)
    assert texts == ["a=1", "a=1", "a=2"]
    assert calls == ["a=1", "a=2"]
