"""Several processes with one voice."""

import warnings

import pytest

from mmseg_m2f.engine import ranks
from mmseg_m2f.engine.ranks import on_first_rank, warnings_of_first_rank
from mmseg_m2f.errors import InvalidValueError


@pytest.mark.parametrize(
    ("launcher", "variable"), [("pytorch", "RANK"), ("slurm", "SLURM_PROCID"), ("mpi", "OMPI_COMM_WORLD_RANK")]
)
def test_warnings_of_first_rank__others_are_silent(
    launcher: str, variable: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    for rank in ("1", "0"):
        monkeypatch.setenv(variable, rank)
        with warnings_of_first_rank(launcher):
            warnings.warn(f"of rank {rank}", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["of rank 0"]


def test_warnings_of_first_rank__a_stray_variable_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.warns(UserWarning, match="said"), warnings_of_first_rank("none"):
        warnings.warn("said", UserWarning, stacklevel=1)


def test_on_first_rank__others_raise_what_it_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = InvalidValueError("a.png is void")

    def fails() -> None:
        raise fault

    with pytest.raises(InvalidValueError, match="a.png is void"):
        on_first_rank(fails)
    on_first_rank(lambda: None)

    def receive(faults: list) -> None:
        faults[0] = fault

    monkeypatch.setattr(ranks, "is_main_process", lambda: False)
    monkeypatch.setattr(ranks, "broadcast_object_list", receive)
    with pytest.raises(InvalidValueError, match="a.png is void"):
        on_first_rank(lambda: pytest.fail("the first rank looks at the files"))
