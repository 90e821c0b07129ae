"""A checkpoint file is complete and holds weights only; nothing in it runs."""

import pickle
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmseg_m2f.checkpoints.checking import check_checkpoint


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def checkpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "iter_3.pth"
    content = dict(state_dict=dict(weight=torch.arange(4000.0)), message_hub=dict(loss=HistoryBuffer([1.0], [1])))
    torch.save(content, path, _use_new_zipfile_serialization=request.param)
    return path


def test_check_checkpoint__gives_the_content(checkpoint: Path) -> None:
    content = check_checkpoint(checkpoint)
    assert torch.equal(content["state_dict"]["weight"], torch.arange(4000.0))


@pytest.mark.parametrize("kept", [0, 1, 2, 100, 1000, 0.5, 0.9, 0.999])
def test_check_checkpoint__names_a_truncated_file(checkpoint: Path, kept: float) -> None:
    data = checkpoint.read_bytes()
    kept = int(kept if kept > 1 or kept == 0 else kept * len(data)) if kept != 1 else 1
    checkpoint.write_bytes(data[:kept])
    with pytest.raises(ValueError, match=rf"{checkpoint} \({kept:,} bytes\).*truncated.*earlier one"):
        check_checkpoint(checkpoint)


class Bomb:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_check_checkpoint__never_executes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.pth"
    content = dict(state_dict=Bomb())
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    expected = "cannot be read: " if kind == "pickle" else "holds an object of type pathlib.*refused"
    with pytest.raises(ValueError, match=f"bomb.pth .*{expected}") as raised:
        check_checkpoint(path)
    assert "weights_only" not in str(raised.value)
    assert not (tmp_path / "exploded").exists()


def test_check_checkpoint__reads_the_arguments_of_a_run(tmp_path: Path) -> None:
    torch.save(dict(state_dict=dict(weight=torch.ones(2)), args=Namespace(lr=0.1)), tmp_path / "best.pth.tar")
    content = check_checkpoint(tmp_path / "best.pth.tar")
    assert content["args"].lr == 0.1


def test_check_checkpoint__lists_what_is_there_instead(tmp_path: Path) -> None:
    (tmp_path / "iter_8.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"iter_9.pth does not exist.*iter_8.pth"):
        check_checkpoint(tmp_path / "iter_9.pth")
    with pytest.raises(FileNotFoundError, match=r"is a folder.*iter_8.pth"):
        check_checkpoint(tmp_path)


def test_check_checkpoint__wants_a_mapping(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"holds a list; expected a mapping"):
        check_checkpoint(tmp_path / "list.pth")


def write_archive(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


def test_check_checkpoint__deeply_nested(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.pth", b"}U\x01a" * 1000 + b"N" + b"s" * 1000)
    with pytest.raises(ValueError, match=r"a\.pth holds containers in containers, more than 100"):
        check_checkpoint(path)
    itself = check_checkpoint(write_archive(tmp_path / "b.pth", b"}q\x00U\x01ah\x00s"))
    assert itself["a"] is itself


def test_check_checkpoint__finds_flipped_bytes(tmp_path: Path) -> None:
    weights = {f"layer{i}.weight": torch.randn(30, 10) for i in range(3)}
    torch.save(dict(state_dict=weights), tmp_path / "good.pth")
    content = (tmp_path / "good.pth").read_bytes()
    for position in range(0, len(content), 61):
        altered = bytearray(content)
        altered[position] ^= 0x10
        (tmp_path / "altered.pth").write_bytes(altered)
        try:
            read = check_checkpoint(tmp_path / "altered.pth")["state_dict"]
        except ValueError:
            continue
        # Not part of any tensor: padding between them.
        assert all(torch.equal(read[name], weights[name]) for name in weights), position


def test_check_checkpoint__names_the_damaged_part(tmp_path: Path) -> None:
    weight = torch.arange(64.0)
    torch.save(dict(state_dict=dict(weight=weight)), tmp_path / "good.pth")
    content = (tmp_path / "good.pth").read_bytes()
    at = content.index(weight.numpy().tobytes())
    (tmp_path / "good.pth").write_bytes(content[: at + 8] + b"\xff" + content[at + 9 :])
    with pytest.raises(ValueError, match=r"good.pth .* is damaged: the checksum of its part .*data/0 differs"):
        check_checkpoint(tmp_path / "good.pth")
