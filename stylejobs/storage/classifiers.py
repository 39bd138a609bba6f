"""Packages that hold a classifier: the same folder, the same digests, another network, and no styles.

    model.json    network "classifier"; options: classes in the order of the logits, width, size_px

They are written by `packages.save_package`, as trainings do.
"""

from dataclasses import dataclass

from stylejobs.core.networks.classifier import Classifier
from stylejobs.errors import ModelError
from stylejobs.storage.packages import CLASSIFIER, check_package, read_weights


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier in memory, in evaluation mode, its weights frozen.

    Attributes:
        classes: names, in the order of the logits; `network.classes`.
        size_px: short side of the whole pictures that it was trained for; `core.agreement.classify` scales to it.
        sha256: identity of its package.
    """

    network: Classifier
    classes: tuple[str, ...]
    size_px: int
    sha256: str


def load_classifier(folder_uri: str, sha256: str | None = None) -> LoadedClassifier:
    """Loads a classifier's package after checking every digest.

    Args:
        sha256: the identity that the job was planned with; None trusts the folder.

    Raises:
        ModelError: something is missing, altered, or does not fit the network; or it is a generator's package.
    """
    package = check_package(folder_uri, sha256)
    if package.network != CLASSIFIER:
        raise ModelError(
            f"{folder_uri}: holds the generator {package.network!r}; wanted a classifier, as method=classifier trains"
        )
    weights = read_weights(folder_uri, package)
    try:
        network = Classifier(**package.options)
        network.load_state_dict(weights)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder_uri}: the weights do not fit the classifier: {error}") from error
    network.eval().requires_grad_(False)
    return LoadedClassifier(network, network.classes, network.size_px, package.sha256)
