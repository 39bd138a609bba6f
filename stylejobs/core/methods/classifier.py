"""A classifier learns the labels of the content: no style, no pictures; a judge of what other methods make."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from stylejobs.core.losses.adversarial import domain_classification
from stylejobs.core.methods.method import Ingredients, Method, Step, Turn
from stylejobs.core.methods.players import adam_player, check_numbers
from stylejobs.core.methods.schedule import Phase
from stylejobs.core.networks.classifier import Classifier


@dataclass(frozen=True)
class ClassificationOptions:
    """The numbers of the method; nobody published them: they are what learns fast on a few thousand small pictures.

    Args:
        learning_rate, beta1, beta2: of Adam.
        decay_from: share of the training from which the rate falls linearly to 0.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    decay_from: float = 0.3

    def __post_init__(self) -> None:
        check_numbers(self)


class Classification(Method):
    """Loss = the cross-entropy of the classes: mean over the batch of -log p(class of x | x).

    The signal `correct` is the share of the batch whose likeliest class is its own.

    Args:
        ingredients: `domains` are the names of the classes, in the order of the numbers in `batch["content_domain"]`,
            which begin at 0; `generator` holds options of the `Classifier` network: `width`, `size_px`.
        options: see `ClassificationOptions`.

    Raises:
        ValueError: fewer than two classes, or options that the network does not take.
    """

    reads = ("content",)
    makes_pictures = False
    options_class = ClassificationOptions

    def __init__(self, ingredients: Ingredients, options: ClassificationOptions | None = None):
        o = options or ClassificationOptions()
        self.generator_name = "classifier"
        given = {"name": self.generator_name, **ingredients.generator}
        if given.pop("name") != self.generator_name:
            raise ValueError(f"classifier: wanted the network 'classifier'; got {ingredients.generator['name']!r}")
        self.generator_options = {**given, "classes": list(ingredients.domains)}
        self.generator = Classifier(**self.generator_options)
        self.networks = {"classifier": self.generator}
        self.frozen = {}
        self.players = {"classifier": adam_player(o, ("classifier",))}
        self.phases = (Phase("train", 1.0, ("classifier",)),)
        self.weights = {"classification": 1.0}
        self.memory = {}

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        class_B = step.batch["content_domain"]
        logits_BK = networks["classifier"](step.batch["content"])
        is_correct_B = logits_BK.detach().argmax(dim=1) == class_B
        terms = {"classification": domain_classification(logits_BK, class_B)}
        return Turn(terms, {"correct": is_correct_B.float().mean()})

    def styles(self) -> dict[str, Tensor]:
        return {}
