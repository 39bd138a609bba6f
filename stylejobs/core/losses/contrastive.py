"""Which place of the content image a place of the result came from, told apart from the other places."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.precision import widen


def patch_nce(query_BND: Tensor, key_BND: Tensor, temperature: float = 0.07) -> Tensor:
    """Contrastive loss of patches: mean over b, n of -log(exp(s_nn / t) / sum over m of exp(s_nm / t)).

    s_nm is the cosine of query n and key m of the same image; row n of both comes from the same place, the other places
    of the image are the negatives. t is the temperature.

    Args:
        query_BND: embedded features of the stylized image at N places; need not be normalised.
        key_BND: those of the content image, same shape. Gradients flow here too: detach it to train as the authors do.
        temperature: above 0; dimensionless.

    Returns:
        Scalar >= 0, float32 (float64 for float64 inputs); log N where all places look the same; 0 at a perfect match
        as the temperature goes to 0.

    Raises:
        ValueError: shapes differ or are not [B, N, D], fewer than 2 places, or a temperature of 0 or less.

    Source: Park, Efros, Zhang & Zhu 2020, arXiv:2007.15651, equations 2 and 3.
    Differs from paper: mean over places in place of their sum, as in the authors' code.

    >>> patch_nce(torch.eye(2)[None], torch.eye(2)[None], temperature=0.01).item()
    0.0
    """
    if query_BND.shape != key_BND.shape or query_BND.ndim != 3 or query_BND.shape[1] < 2:
        raise ValueError(
            "wanted queries and keys of one shape [B, N, D] with N >= 2; "
            f"got {list(query_BND.shape)} and {list(key_BND.shape)}"
        )
    if not temperature > 0.0:
        raise ValueError(f"wanted a temperature above 0; got {temperature}")
    # The floor of the norm keeps the gradient of an all-zero feature small.
    query_BND, key_BND = (F.normalize(widen(features), dim=2, eps=1e-6) for features in (query_BND, key_BND))
    with torch.autocast(query_BND.device.type, enabled=False):
        logits_BNN = query_BND @ key_BND.transpose(1, 2) / temperature
    batch, places, _ = logits_BNN.shape
    own_place_BN = torch.arange(places, device=logits_BNN.device).expand(batch, places)
    return F.cross_entropy(logits_BNN.flatten(0, 1), own_place_BN.flatten())
