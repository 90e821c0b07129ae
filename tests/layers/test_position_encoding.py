import torch

from mmseg_m2f.layers.position_encoding import sine_position_encoding


def test_sine_position_encoding__known_values():
    code = sine_position_encoding((2, 3), 256, torch.zeros(1))
    expected = [
        (code[:4, 0, 0], [1.34e-6, -1.0, 0.40875, -0.91265]),
        (code[128:132, 0, 0], [0.8660, -0.5, 0.9707, -0.2405]),
        (code[128:132, 0, 2], [-1.7e-6, 1.0, -0.74609, 0.66584]),
    ]
    for actual, values in expected:
        torch.testing.assert_close(actual, torch.tensor(values), rtol=0, atol=5e-5)


def test_sine_position_encoding__half_precision_is_the_rounded_float():
    code = sine_position_encoding((3, 4), 16, torch.zeros(1, dtype=torch.bfloat16))
    exact = sine_position_encoding((3, 4), 16, torch.zeros(1))
    assert torch.equal(code, exact.bfloat16())
