"""Luma, colours kept, and the word for the arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylejobs.core.luma import keep_colour, luma
from stylejobs.core.precision import autocast

YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
"""FCC 1953: what the paper calls YIQ, written apart from our code."""


def images(seed: int, *shape: int, reach: float = 1.0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1) * reach


def to_yiq(image_BCHW: Tensor) -> np.ndarray:
    return np.einsum("dc,bchw->bdhw", YIQ, image_BCHW.numpy())


def test_luma_is_the_first_row_of_yiq() -> None:
    image_BCHW = images(0, 2, 3, 5, 7)
    assert np.allclose(luma(image_BCHW).numpy(), to_yiq(image_BCHW)[:, :1], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
def test_law_luma_of_the_stylized_and_chroma_of_the_content(seed: int, height: int, width: int) -> None:
    content_BCHW, stylized_BCHW = images(seed, 2, 3, height, width), images(seed + 1, 2, 3, height, width)
    kept_BCHW = keep_colour(stylized_BCHW, content_BCHW)
    kept = to_yiq(kept_BCHW)
    assert np.allclose(kept[:, :1], to_yiq(stylized_BCHW)[:, :1], atol=1e-12)
    assert np.allclose(kept[:, 1:], to_yiq(content_BCHW)[:, 1:], atol=1e-5)  # the matrix has six digits
    assert torch.equal(keep_colour(content_BCHW, content_BCHW), content_BCHW) and kept_BCHW.abs().max() <= 3


def test_a_grey_result_for_a_grey_content() -> None:
    grey_BCHW = images(0, 1, 1, 4, 4).expand(1, 3, 4, 4)
    kept_BCHW = keep_colour(images(1, 1, 3, 4, 4), grey_BCHW)
    assert torch.allclose(kept_BCHW[:, 0], kept_BCHW[:, 1]) and torch.allclose(kept_BCHW[:, 0], kept_BCHW[:, 2])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted two batches of one shape"):
        keep_colour(images(0, 1, 3, 4, 4), images(0, 1, 3, 4, 5))
    for wrong in (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4)):
        with pytest.raises(ValueError, match="wanted a float batch"):
            luma(wrong)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_sets_the_dtype_of_products_also_inside_of_another(precision: str, dtype: torch.dtype) -> None:
    for outer in ("float32", "bf16"):
        with autocast("cpu", outer), autocast("cpu", precision):
            assert (torch.eye(2) @ torch.eye(2)).dtype == dtype


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted a precision out of float32, bf16; got 'half'"):
        autocast("cpu", "half")
