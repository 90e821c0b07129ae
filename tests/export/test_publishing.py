"""A published folder is read like the checkpoint that it was made from; changed files are refused."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_m2f import compat
from mmseg_m2f.checkpoints.published import is_published, read_published
from mmseg_m2f.engine.launch import train
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.export.publishing import publish
from mmseg_m2f.inference import Predictor
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("publishing")
    write_dataset(folder / "data")
    cfg = tiny_config(folder / "data")
    torch.manual_seed(0)
    model = Predictor(cfg).model
    torch.save(dict(state_dict=model.state_dict(), optimizer=dict(a=1)), folder / "weights.pth")
    trained = load_trained(cfg, folder / "weights.pth")
    names = publish(trained, cfg, folder / "out", metrics=dict(mIoU=0.75), licence="apache-2.0")
    assert names == ["README.md", "config.json", "model.safetensors", "SHA256SUMS"]
    return folder


def write_sums(folder: Path) -> None:
    """Hashes of the files as they are."""
    names = ("config.json", "model.safetensors")
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))


def test_publish__predicts_the_same_without_the_run(folder):
    image = folder / "data/images/000.png"
    expected = Predictor(tiny_config(folder / "data"), folder / "weights.pth")(image).semantic
    predictor = Predictor(folder / "out")
    assert np.array_equal(predictor(image).semantic, expected)
    assert predictor.classes == ["dark", "bright"]


def test_publish__has_the_shape_of_a_hub_repository(folder):
    content = json.loads((folder / "out/config.json").read_text())
    card = (folder / "out/README.md").read_text()
    assert content["metrics"] == {"mIoU": 0.75}
    assert card.startswith("---\nlibrary_name: mmseg_m2f\npipeline_tag: image-segmentation\nlicense: apache-2.0\n---\n")
    assert "mIoU: 0.7500" in card


def test_publish__card_shows_names_as_they_are(folder, tmp_path):
    cfg = tiny_config(folder / "data")
    trained = replace(load_trained(cfg, folder / "weights.pth"), classes=["<b>", "a|b"])
    publish(trained, cfg, tmp_path / "out", metrics={"IoU.[x]": 0.5})
    card = (tmp_path / "out/README.md").read_text()
    assert "\n- IoU.\\[x\\]: 0.5000\n" in card
    assert card.endswith("\n\\<b\\>, a\\|b\n")


def test_publish__trainings_start_from_the_folder(folder, tmp_path):
    cfg = tiny_config(folder / "data", max_iters=2)
    cfg.load_from = str(folder / "out")
    cfg.optim_wrapper.optimizer.lr = 0.0
    runner = train(write_config(cfg, tmp_path / "from_published.py"), work_dir=str(tmp_path))
    weight = read_published(folder / "out").weights()["decode_head.conv_seg.weight"]
    assert torch.equal(runner.model.decode_head.conv_seg.weight, weight)


def test_publish__hub_repositories_come_through_huggingface_hub(folder, tmp_path, monkeypatch):
    """The library itself reads its cache of what it downloaded: the files that we ask for, without the card."""
    from huggingface_hub import constants

    snapshot = tmp_path / "models--owner--name/snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "SHA256SUMS"):
        (snapshot / name).write_bytes((folder / "out" / name).read_bytes())
    (tmp_path / "models--owner--name/refs").mkdir()
    (tmp_path / "models--owner--name/refs/main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert is_published("hf://owner/name")
    image = folder / "data/images/000.png"
    predictor = Predictor("hf://owner/name")
    assert predictor.classes == ["dark", "bright"]
    assert np.array_equal(predictor(image).semantic, Predictor(folder / "out")(image).semantic)


def test_publish__hub_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(compat, "is_installed", lambda package: package != "huggingface_hub")
    with pytest.raises(ValueError, match=r"expected the package huggingface_hub, got none.*mmseg-m2f\[huggingface\]"):
        read_published("hf://owner/name")


def test_publish__extra_installs_what_the_hub_needs():
    """`pip install "mmseg-m2f[huggingface]"` is what the messages say."""
    extra = re.search(r"(?m)^huggingface = \[(.*?)\]", (ROOT / "pyproject.toml").read_text())
    assert extra is not None
    assert {"huggingface_hub", "safetensors"} <= {name.strip('" ') for name in extra[1].split(",")}


@pytest.mark.parametrize(
    "address", ["hf://", "hf://a", "hf://a/b/c/d", "hf://a/", "hf:///b", "hf://a/b c", "hf://a--b/c"]
)
def test_publish__addresses_that_name_no_repository_are_refused(address):
    with pytest.raises(InvalidValueError, match=rf"^{address}: expected hf://OWNER/NAME, got "):
        Predictor(address)


def test_publish__repository_that_cannot_be_downloaded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingFileError, match=r"^hf://owner/name: expected .* got none.*HF_HUB_OFFLINE.*give a folder"
    ) as caught:
        Predictor("hf://owner/name")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "got lists or entries inside each other"),
        ("[]", "got a list of 0 instead of entries config, classes, palette, category_ids"),
        (dict(classes=7), "got 7 instead of a list at classes"),
        (dict(palette=[[1, 2, 3], None]), r"got None instead of a list at palette\[1\]"),
        (dict(metrics=dict(mIoU="high")), "got 'high' instead of a number at metrics.mIoU"),
    ],
)
def test_publish__config_of_another_structure_is_refused(folder, tmp_path, content, said):
    (tmp_path / "model.safetensors").write_bytes((folder / "out/model.safetensors").read_bytes())
    if isinstance(content, dict):
        content = json.dumps(json.loads((folder / "out/config.json").read_text()) | content)
    (tmp_path / "config.json").write_text(content)
    write_sums(tmp_path)
    with pytest.raises(ValueError, match=rf"config.json.*{said}.*Publish the model again"):
        read_published(tmp_path)


def test_publish__ids_may_be_texts(folder, tmp_path):
    cfg = tiny_config(folder / "data")
    trained = replace(load_trained(cfg, folder / "weights.pth"), category_ids=["n01", "n02"])
    publish(trained, cfg, tmp_path / "out")
    assert read_published(tmp_path / "out").category_ids == ["n01", "n02"]


def test_publish__changed_files_are_refused(folder, tmp_path):
    for name in ("README.md", "config.json", "model.safetensors", "SHA256SUMS"):
        (tmp_path / name).write_bytes((folder / "out" / name).read_bytes())
    (tmp_path / "README.md").write_text("A better card")
    read_published(tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("0.75", "0.95"))
    with pytest.raises(ValueError, match=r"expected config.json as it was published.*hash differs"):
        read_published(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(FileNotFoundError, match="got one without SHA256SUMS"):
        read_published(tmp_path)


@pytest.mark.parametrize("left_out", ["config.json", "model.safetensors"])
def test_publish__hashes_that_leave_a_file_out_are_refused(folder, tmp_path, left_out):
    copy = shutil.copytree(folder / "out", tmp_path / "copy")
    lines = (copy / "SHA256SUMS").read_text().splitlines(keepends=True)
    (copy / "SHA256SUMS").write_text("".join(line for line in lines if left_out not in line))
    with pytest.raises(ValueError, match=rf"expected SHA256SUMS with a hash of .*, got none of {left_out}\. Copy"):
        read_published(copy)


def test_publish__truncated_weights_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder / "out", tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"expected model.safetensors as it was published"):
        read_published(copy)
    write_sums(copy)
    with pytest.raises(InvalidValueError, match=r"model.safetensors .* cannot be read: .*copy it again"):
        Predictor(copy)


def test_publish__folder_without_weights_says_what_is_missing(folder, tmp_path):
    copy = shutil.copytree(folder / "out", tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"expected a folder of tools/publish.py, got one without model.safetensors"
    ):
        Predictor(copy)


@pytest.fixture
def trained(folder):
    cfg = tiny_config(folder / "data")
    return load_trained(cfg, folder / "weights.pth"), cfg


def test_publish__replaces_what_it_wrote_before(trained, tmp_path):
    publish(*trained, tmp_path / "out", metrics=dict(mIoU=0.25))
    (tmp_path / "out/.gitattributes").write_text("kept")
    (tmp_path / "out/model.safetensors").unlink()  # as after an interruption
    publish(*trained, tmp_path / "out", metrics=dict(mIoU=0.75))
    assert read_published(tmp_path / "out").metrics == {"mIoU": 0.75}
    assert (tmp_path / "out/.gitattributes").read_text() == "kept"


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": "mine"},
        {"README.md": "mine", "config.json": "{}", "SHA256SUMS": "0  config.json\n0  model.safetensors\n"},
        {"README.md": "mine", "config.json": None},
        {"README.md": "mine", "config.json": None, "SHA256SUMS": "0  README.md\n"},
    ],
)
def test_publish__folders_of_other_files_stay_as_they_are(folder, trained, tmp_path, files):
    published = (folder / "out/config.json").read_text()
    files = {name: published if content is None else content for name, content in files.items()}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidValueError, match=rf"^{tmp_path}: expected .* got one with README.md.* Give another"):
        publish(*trained, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("target", ["file", "file/out", "link"])
def test_publish__files_in_the_place_of_the_folder_are_refused(trained, tmp_path, target):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    with pytest.raises(InvalidValueError, match=rf"^{tmp_path / target}: expected .* folder, got a file"):
        publish(*trained, tmp_path / target)
    assert (tmp_path / "file").read_text() == "mine"


def test_publish__interrupted_it_leaves_the_published_files(trained, tmp_path, monkeypatch):
    publish(*trained, tmp_path / "out", metrics=dict(mIoU=0.25))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def interrupt(_: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmseg_m2f.export.publishing.hashlib.sha256", interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish(*trained, tmp_path / "out", metrics=dict(mIoU=0.75))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
