"""What a CPU can show of graphs: everything but the recording itself, which a stand-in plays by running again."""

import copy
import logging
import pickle
from collections.abc import Callable

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmseg_m2f.models.cuda_graphs import GraphedNetwork, make_graphs
from tests.models.conftest import make_batch


class RunsAgain:
    """A recorder for the CPU: replaying runs the same code and writes into the tensors of the recording.

    Where the backward pass has written gradients, the next forward pass writes NaN, as with graphs it may.
    """

    def __init__(self) -> None:
        self.recorded = self.replayed = 0
        self.gradients: list[Tensor] = []
        self.started = 0

    def start_over(self) -> None:
        self.started += 1

    def warm_up(self, run: Callable[[], object]) -> None:
        run()

    def record(self, run: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        self.recorded += 1
        results, with_grad = run(), torch.is_grad_enabled()
        is_backward = run.__name__ == "_run_backward"
        if is_backward:
            self.gradients += results

        def replay() -> None:
            self.replayed += 1
            for gradient in () if is_backward else self.gradients:
                gradient.data.fill_(torch.nan)
            with torch.set_grad_enabled(with_grad):
                again = run()
            for result, new in zip(results, again, strict=True):
                result.data.copy_(new)  # unseen by autograd, as what a graph writes

        return replay, results


def build(config: ConfigDict, *, most: int = 4, **options: object) -> tuple[nn.Module, RunsAgain]:
    """A model whose graphs are played by `RunsAgain`; the same weights each time."""
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config, **options)).train()
    recorder = RunsAgain()
    model.graphs = GraphedNetwork(most=most, recorder=recorder)
    return model, recorder


def build_plain(config: ConfigDict, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(config, **options)).train()


def backward(model: nn.Module, batch: tuple) -> dict[str, Tensor]:
    """One step's losses; gradients are added to those there are."""
    torch.manual_seed(1)
    losses = model.loss(*batch)
    total, _ = model.parse_losses(losses)
    total.backward()
    return {name: value.detach() for name, value in losses.items()}


def assert_same_step(model: nn.Module, plain: nn.Module, batch: tuple) -> None:
    actual, expected = backward(model, batch), backward(plain, batch)
    assert list(actual) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_graphed_network__losses_and_gradients_of_replays(model_config):
    (model, recorder), plain = build(model_config), build_plain(model_config)
    for step in range(4):
        for each in (model, plain):
            each.zero_grad(set_to_none=True)
        assert_same_step(model, plain, make_batch())
        assert recorder.recorded == (0 if step == 0 else 2), step  # forward and backward, at the second time
    assert recorder.replayed == 6


def test_graphed_network__accumulates_gradients(model_config):
    (model, recorder), plain = build(model_config), build_plain(model_config)
    for _ in range(5):
        assert_same_step(model, plain, make_batch())
    assert recorder.replayed == 8


def test_graphed_network__gradients_lie_where_they_are_replayed(model_config):
    model, _ = build(model_config)
    batch = make_batch()
    places = []
    for _ in range(3):
        model.zero_grad(set_to_none=True)
        backward(model, batch)
        places.append([p.grad.data_ptr() for p in model.parameters() if p.grad is not None and p.dim() < 4])
    assert places[1] == places[2]


def test_graphed_network__weights_change_in_place(model_config):
    (model, recorder), plain = build(model_config), build_plain(model_config)
    optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-3) for each in (model, plain)]
    for _ in range(4):
        assert_same_step(model, plain, make_batch())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    fresh = build_plain(model_config)
    for each in (model, plain):
        each.load_state_dict(fresh.state_dict())
        each.zero_grad()
    assert_same_step(model, plain, make_batch())
    assert recorder.recorded == 2


def test_graphed_network__weights_that_move_are_recorded_again(model_config):
    model, recorder = build(model_config)
    for _ in range(2):
        backward(model, make_batch())
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    for recorded in (2, 4):
        backward(model, make_batch())
        assert recorder.recorded == recorded


def test_graphed_network__frozen_layers(model_config):
    (model, recorder), plain = build(model_config), build_plain(model_config)
    batch = make_batch()
    for frozen in (True, False):
        for each in (model, plain):
            each.zero_grad(set_to_none=True)
            each.backbone.requires_grad_(not frozen)
        for _ in range(2):
            assert_same_step(model, plain, batch)
    assert recorder.recorded == 4
    model.requires_grad_(False)
    losses = [model.loss(*batch)["loss_cls"] for _ in range(3)]
    assert recorder.recorded == 5  # without a backward pass
    assert not losses[-1].requires_grad


def test_graphed_network__inference(model_config):
    (model, recorder), plain = build(model_config), build_plain(model_config)
    for each in (model, plain):
        each.eval()
    for _ in range(3):
        images, samples = make_batch()
        found = [each.predict(images, [sample.clone() for sample in samples]) for each in (model, plain)]
        for one, other in zip(*found, strict=True):
            assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
    assert recorder.recorded == 1
    assert recorder.replayed == 2


def test_graphed_network__inference_between_steps(model_config):
    (model, recorder), plain = build(model_config), build_plain(model_config)
    for _ in range(3):
        images, samples = make_batch()
        assert_same_step(model, plain, (images, samples))
        model.eval().predict(images, samples)
        model.train()
    assert recorder.recorded == 3


def test_graphed_network__detector_with_padding(model_config):
    from tests.models.segmentors.test_mask_detector import make_batch as make_objects

    options = dict(type="mmseg_m2f.MaskDetector", thing_classes=[0, 3])
    (model, recorder), plain = build(model_config, **options), build_plain(model_config, **options)
    for _ in range(3):
        assert_same_step(model, plain, make_objects())
    assert recorder.recorded == 2
    results = [each.eval().predict(*make_objects())[0] for each in (model, plain, model, model)]
    assert len({len(result.pred_instances) for result in results}) == 1


def test_graphed_network__bfloat16(model_config):
    (model, recorder), plain = build(model_config), build_plain(model_config)
    batch = make_batch()
    for autocast in (True, True, False, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            actual, expected = backward(model, batch), backward(plain, batch)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert recorder.recorded == 4  # one for each precision


def test_graphed_network__statistics_of_norms_are_those_of_the_steps(model_config):
    model_config.backbone.norm_eval = False
    (model, recorder), plain = build(model_config), build_plain(model_config)
    assert_same_step(model, plain, make_batch())
    images, samples = make_batch()
    before = torch.get_rng_state()
    model.loss(images, samples)
    torch.set_rng_state(before)
    plain.loss(images, samples)
    assert recorder.recorded == 2
    # The stand-in counts the recording as a run, which a graph does not: forward ran for it, and as a replay.
    for name, buffer in plain.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert dict(model.named_buffers())[name] == buffer, name


def test_graphed_network__shapes_take_turns(model_config):
    model, recorder = build(model_config, most=2)
    for size in [(64, 64), (64, 96), (64, 64), (64, 96), (96, 64), (96, 64), (64, 64)]:
        backward(model, make_batch(size))
    assert recorder.recorded == 4  # room for two; the third runs as usual


def test_graphed_network__two_passes_before_one_backward_raise(model_config):
    model, _ = build(model_config)
    batch = make_batch()
    backward(model, batch)
    totals = [model.parse_losses(model.loss(*batch))[0] for _ in range(2)]
    totals[1].backward()
    with pytest.raises(RuntimeError, match="expected one backward pass, right after its forward pass, but the network"):
        totals[0].backward()


def test_graphed_network__two_backward_passes_of_one_forward_pass_raise(model_config):
    model, _ = build(model_config)
    backward(model, make_batch())
    model.zero_grad(set_to_none=True)
    total, _ = model.parse_losses(model.loss(*make_batch()))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="expected one backward pass, right after its forward pass, but it has been"):
        total.backward()


def test_graphed_network__gradients_stay_their_own_in_inference_mode(model_config):
    """Kept over an inference in between, they can be clipped and added to."""
    (model, _), plain = build(model_config), build_plain(model_config)
    for each in (model, plain):
        backward(each, make_batch())
        each.zero_grad(set_to_none=True)
        backward(each, make_batch())
        each.eval()
        images, samples = make_batch()
        with torch.inference_mode():
            for _ in range(3):
                each.predict(images, samples)
        each.train()
        torch.nn.utils.clip_grad_norm_(each.parameters(), 0.01)
    assert_same_step(model, plain, make_batch())


def test_graphed_network__memory_is_new_where_no_recording_is_left(model_config):
    model, recorder = build(model_config, most=1)
    for _ in range(2):
        backward(model, make_batch())
    assert recorder.started == 1
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    for _ in range(3):
        backward(model, make_batch())
    assert (recorder.recorded, recorder.started) == (4, 2)


def test_graphed_network__layers_share_mask_features(model_config):
    from mmseg_m2f.models.network import run_network

    model, recorder = build(model_config)
    images, _ = make_batch()
    for _ in range(2):
        predictions, features = run_network(model, images)
    assert recorder.recorded == 2
    assert features is None
    assert all(prediction.mask_features is predictions[0].mask_features for prediction in predictions)


def test_graphed_network__copies_and_files_leave_recordings_behind(model_config):
    model, _ = build(model_config)
    for _ in range(2):
        backward(model, make_batch())
    copied = copy.deepcopy(model)
    assert copied.graphs is not model.graphs
    assert list(copied.state_dict()) == list(model.state_dict())
    restored = pickle.loads(pickle.dumps(GraphedNetwork(most=3)))
    assert restored._most == 3


def test_graphed_network__says_once_that_there_is_no_gpu(model_config, caplog):
    model = MODELS.build(ConfigDict(model_config, cuda_graphs=True)).eval()
    images, samples = make_batch()
    with caplog.at_level(logging.WARNING, logger="mmseg_m2f"):
        for _ in range(2):
            model.predict(images, samples)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["model.cuda_graphs: expected images on a CUDA device, got cpu: the network runs as usual."]


def test_graphed_network__parts_that_need_the_host_are_named(model_config, caplog):
    class NMF2D(nn.Module):
        pass

    model, recorder = build(model_config)
    model.decode_head.ham = NMF2D()
    with caplog.at_level(logging.WARNING, logger="mmseg_m2f"):
        for _ in range(3):
            backward(model, make_batch())
    assert recorder.recorded == 0
    (record,) = caplog.records
    assert "NMF2D cannot be part of a CUDA graph" in record.getMessage()


def test_make_graphs__options():
    assert make_graphs(False, compile=False) is None
    assert make_graphs(True, compile=True)._most == 4
    assert make_graphs(dict(most=2), compile=False)._most == 2
    with pytest.raises(TypeError, match="several"):
        make_graphs(dict(several=2), compile=False)
    with pytest.raises(ValueError, match="most of at least 1, got 0"):
        make_graphs(dict(most=0), compile=False)
    with pytest.raises(ValueError, match="both make CUDA graphs"):
        make_graphs(True, compile=dict(mode="reduce-overhead"))
