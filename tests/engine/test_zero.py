"""What needs no DeepSpeed, with an engine that stands for it; tests/e2e/test_zero.py runs DeepSpeed's."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim import SGD, Adam, Rprop

from mmseg_m2f.engine.whole_states import WholeStates
from mmseg_m2f.engine.zero import Zero, ZeroModel, ZeroOptimizer, clip_norm, import_deepspeed, spread


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, mode: str = "tensor") -> dict[str, torch.Tensor] | list[torch.Tensor]:
        return dict(loss=self.layer(x).mean()) if mode == "loss" else [self.layer(x)]


class Engine:
    """DeepSpeed's engine, as far as it is used, with nothing spread."""

    def __init__(self, model: Model, optimizer: torch.optim.Optimizer, *, stage: int, applies: bool = True) -> None:
        self.module, self.applies, self.rates = model, applies, []
        self._optimizer = optimizer
        self.optimizer = SimpleNamespace(
            partition_gradients=stage == 2,
            params_in_partition=[[model.layer.weight, model.layer.bias]],
            all_grad_tensors={},
            averaged_gradients={},
            zero_grad=lambda set_to_none: model.zero_grad(set_to_none=set_to_none),
        )

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.called = True
        return self.module(*args, **kwargs)

    def step(self) -> None:
        self.rates.append(self._optimizer.param_groups[0]["lr"])

    def was_step_applied(self) -> bool:
        return self.applies


def zero_optimizer(*, stage: int = 1, applies: bool = True) -> tuple[Model, ZeroOptimizer]:
    model = Model()
    optimizer = SGD(model.parameters(), lr=0.1)
    whole = WholeStates(model, optimizer)
    return model, ZeroOptimizer(Engine(model, optimizer, stage=stage, applies=applies), optimizer, whole)


def test_import_deepspeed__names_the_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(TypeError, match=r"mmseg-m2f\[deepspeed\].*or take FSDPStrategy"):
        import_deepspeed()


def test_import_deepspeed__keeps_it_from_building_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    package = ModuleType("deepspeed")
    package.utils = SimpleNamespace(logger=SimpleNamespace(setLevel=levels.append))
    package.get_accelerator = lambda: SimpleNamespace(device_name=lambda: "cpu")
    package.ops = SimpleNamespace(__compatible_ops__={"deepspeed_shm_comm": True})
    monkeypatch.setitem(sys.modules, "deepspeed", package)
    assert import_deepspeed() is package
    assert vars(package.ops)["__compatible_ops__"] == {"deepspeed_shm_comm": False}
    assert levels == [30]


def test_clip_norm__is_that_of_the_config() -> None:
    assert clip_norm(None) == 0
    assert clip_norm(dict(max_norm=0.01, norm_type=2)) == 0.01


@pytest.mark.parametrize(
    "clip", [dict(type="value", clip_value=1.0), dict(max_norm=1.0, norm_type=1), dict(max_norm=1.0, foreach=True)]
)
def test_clip_norm__refuses_what_deepspeed_does_not_know(clip: dict) -> None:
    with pytest.raises(ValueError, match=r"clip_grad=.*expected dict\(max_norm=NORM, norm_type=2\)"):
        clip_norm(clip)


def test_spread__refuses_optimizers_that_see_whole_tensors() -> None:
    model = Model()
    with pytest.raises(TypeError, match="DeepSpeedStrategy with Rprop: expected SGD, Adam, AdamW"):
        spread(model, OptimWrapper(Rprop(model.parameters())), Zero())


def test_spread__refuses_parameters_without_a_dimension() -> None:
    model = Model()
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match=r"parameter scale of shape \(\)"):
        spread(model, OptimWrapper(Adam(model.parameters())), Zero())


def test_step__takes_the_rates_that_schedulers_set() -> None:
    _, optimizer = zero_optimizer()
    called: list[int] = []
    optimizer.after_step = lambda: called.append(1)
    optimizer.param_groups[0]["lr"] = 0.025
    optimizer.step()
    assert optimizer.engine.rates == [0.025]
    assert called == [1]


def test_step__says_that_deepspeed_left_it_out() -> None:
    _, optimizer = zero_optimizer(applies=False)
    with pytest.raises(ValueError, match="the norm of the gradients is not finite"):
        optimizer.step()


@pytest.mark.parametrize("stage", [1, 2])
def test_held_gradients__come_back(stage: int) -> None:
    gradients = {"layer.weight": torch.ones(1, 2), "layer.bias": torch.full((1,), 2.0)}
    model, optimizer = zero_optimizer(stage=stage)
    assert optimizer.held_gradients() == {}
    assert not optimizer.has_gradients
    optimizer.restore_gradients(gradients)
    assert optimizer.has_gradients
    held = optimizer.held_gradients()
    assert held.keys() == gradients.keys()
    assert all(torch.equal(held[name], value) for name, value in gradients.items())
    assert (model.layer.weight.grad is None) == (stage == 2)
    optimizer.zero_grad()
    assert optimizer.held_gradients() == {}
    assert not optimizer.has_gradients


def test_load_state_dict__comes_before_spreading() -> None:
    _, optimizer = zero_optimizer()
    with pytest.raises(TypeError, match="expected states before `spread`"):
        optimizer.load_state_dict({})


def test_zero_model__trains_by_the_engine_and_evaluates_alone() -> None:
    model, optimizer = zero_optimizer()
    spread_model = ZeroModel(optimizer.engine)
    assert is_model_wrapper(spread_model)
    assert list(spread_model.state_dict()) == ["module.layer.weight", "module.layer.bias"]
    wrapper = OptimWrapper(SGD(model.parameters(), lr=0.0))
    x = torch.ones(3, 2)
    losses = spread_model.train_step(dict(x=x), wrapper)
    assert optimizer.engine.called
    assert torch.equal(losses["loss"], model.layer(x).mean())
    optimizer.engine.called = False
    assert torch.equal(spread_model.val_step(dict(x=x))[0], model.layer(x))
    assert torch.equal(spread_model.test_step([x])[0], model.layer(x))
    assert not optimizer.engine.called


def test_zero_model__writes_weights_with_storage_of_their_own() -> None:
    model, optimizer = zero_optimizer()
    flat = torch.arange(6.0)
    model.layer.weight.data, model.layer.bias.data = flat[:2].view(1, 2), flat[2:3]
    state = ZeroModel(optimizer.engine).module.state_dict()
    assert [value.untyped_storage().nbytes() for value in state.values()] == [8, 4]
    assert [value.flatten().tolist() for value in state.values()] == [[0, 1], [2]]
