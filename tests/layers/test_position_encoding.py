import torch

from mmseg_m2f.layers.position_encoding import (
    cell_centres,
    padded_position_encoding,
    positions_to_learn,
    sine_box_encoding,
    sine_position_encoding,
)


def test_sine_position_encoding__known_values():
    code = sine_position_encoding((2, 3), 256, torch.zeros(1))
    expected = [
        (code[:4, 0, 0], [1.34e-6, -1.0, 0.40875, -0.91265]),
        (code[128:132, 0, 0], [0.8660, -0.5, 0.9707, -0.2405]),
        (code[128:132, 0, 2], [-1.7e-6, 1.0, -0.74609, 0.66584]),
    ]
    for actual, values in expected:
        torch.testing.assert_close(actual, torch.tensor(values), rtol=0, atol=5e-5)


def test_positions_to_learn__row_by_row():
    code = sine_position_encoding((2, 3), 8, torch.zeros(1))
    rows = positions_to_learn((2, 3), 8)
    assert rows.shape == (6, 8)
    assert torch.equal(rows[4], code[:, 1, 1])


def test_sine_position_encoding__half_precision_is_the_rounded_float():
    code = sine_position_encoding((3, 4), 16, torch.zeros(1, dtype=torch.bfloat16))
    exact = sine_position_encoding((3, 4), 16, torch.zeros(1))
    assert torch.equal(code, exact.bfloat16())


def test_padded_position_encoding__known_values():
    # A map of 1×3 whose third column is padding (arXiv 2005.12872's code gives these values).
    code = padded_position_encoding(torch.tensor([[[True, True, False]]]), 256, torch.zeros(1))[0, :, 0]
    expected = [
        (code[128:132, 0], [1.3e-6, -1.0, 0.4087523, -0.9126454]),
        (code[128:132, 1], [-2.7e-6, 1.0, -0.7460917, 0.6658432]),
        (code[:4, 0], [-6.0e-6, 1.0, -0.7460936, 0.6658410]),
    ]
    for actual, values in expected:
        torch.testing.assert_close(actual, torch.tensor(values), rtol=0, atol=5e-6)


def test_padded_position_encoding__valid_cells_do_not_see_the_padding():
    valid = torch.zeros(2, 5, 7, dtype=torch.bool)
    valid[0, :3, :4], valid[1] = True, True
    code = padded_position_encoding(valid, 16, torch.zeros(1, dtype=torch.double))
    torch.testing.assert_close(code[0, :, :3, :4], sine_position_encoding((3, 4), 16, code))
    torch.testing.assert_close(code[1], sine_position_encoding((5, 7), 16, code))


def test_cell_centres__row_by_row():
    expected = torch.tensor([[0.25, 0.5], [0.75, 0.5]])
    assert torch.equal(cell_centres((1, 2), torch.zeros(1)), expected)
    assert torch.equal(cell_centres((2, 1), torch.zeros(1, dtype=torch.bfloat16)), expected.flip(1))


def test_sine_box_encoding__known_values():
    code = sine_box_encoding(torch.tensor([0.5, 0.25, 0.2, 0.1]), 256)
    assert code.shape == (512,)
    expected = [(0, [1, 0, 0.97792, 0.20899]), (128, [0, -1]), (256, [0.95106, 0.30902]), (384, [0.58779, 0.80902])]
    for first, values in expected:
        found = code[first : first + len(values)]
        torch.testing.assert_close(found, torch.tensor(values, dtype=torch.float32), rtol=0, atol=1e-5)
