"""The settings themselves: one declaration per knob, with its unit, bounds and one line of meaning.

The description of a field is what ``mrigan train --help`` and docs/settings.md print.
A field is part of a run's identity unless ``identity.py`` says otherwise.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mrigan.environment import default_cache_dir
from mrigan.settings.declared import DeclaredSettings
from mrigan.settings.models import DEFAULT, MODELS, Scheduled, of_model
from mrigan.settings.values import (
    Beta,
    Count,
    Device,
    Images,
    Rate,
    Uri,
    globs,
    is_inside,
    is_same,
    known_folder,
    known_model,
    known_trackers,
    percent,
    with_a_group,
    writable_uri,
)


class Settings(DeclaredSettings):
    """All settings of a run, validated and frozen; build it with ``sources.load_settings``."""

    input_uri: Uri = Field(
        "phantom://512",
        title="Data",
        description="where the slices are: `s3://bucket/prefix`, a folder, or `phantom://N` "
        "(N procedural slices)",
    )
    output_uri: Annotated[Uri, AfterValidator(writable_uri)] = Field(
        "runs/demo",
        description="where the run is written: `s3://bucket/prefix` or a folder; the same one "
        "again resumes it",
    )
    image_height: int = Field(200, ge=32, le=2048, description="height of a slice, pixels")
    image_width: int = Field(160, ge=32, le=2048, description="width of a slice, pixels")
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch",
        description="how a slice of another shape is brought to height × width: `stretch` changes "
        "its proportions, `pad` adds black, `crop` cuts off",
    )
    include: Annotated[str, AfterValidator(globs)] = Field(
        "",
        description="globs of the slices, separated by commas, such as `*_t1.png,flair/`; empty "
        "takes every object",
    )
    exclude: Annotated[str, AfterValidator(globs)] = Field(
        "",
        description="globs of what to leave out, separated by commas, such as `*_mask.tif,labels/`",
    )
    max_refused: Annotated[float, BeforeValidator(percent)] = Field(
        5.0,
        ge=0,
        le=100,
        description="objects that may be unusable before the job stops, percent of those listed",
    )
    cache_dir: Annotated[Path, AfterValidator(known_folder)] = Field(
        default_factory=default_cache_dir,
        json_schema_extra={"default": "~/.cache/mrigan"},
        description="folder of the decoded slices, reused by the next start",
    )

    model: Annotated[str, AfterValidator(known_model)] = Field(
        DEFAULT,
        title="Training",
        description="networks: `dcgan` is the notebook's design; `r3-tiny`, `r3-s`, `r3-m`, `r3-l` "
        "are residual networks with a regularised relativistic loss, 0.1 to 23 million weights "
        "each",
    )
    latent_dim: int = Field(
        default_factory=of_model("latent_dim"),
        ge=1,
        le=4096,
        description="numbers in one latent vector",
    )
    epochs: int = Field(500, ge=1, le=10_000_000, description="passes over the slices")
    batch_size: Count = Field(
        32, description="images that `dcgan`'s BatchNorm sees at a time (a group of images)"
    )
    accumulation_steps: Count = Field(
        default_factory=of_model("accumulation_steps"),
        description="groups of `batch_size` images per optimizer step",
    )
    micro_batch: Literal["auto"] | Count = Field(
        "auto",
        description="images in one forward pass, which changes no number; a multiple of "
        "`batch_size` for `dcgan`; `auto` is all of a step on a GPU, halved until it "
        "fits, and `batch_size` elsewhere",
    )
    sync_batchnorm: bool = Field(
        False,
        json_schema_extra={"family": "dcgan"},
        description="whether `dcgan`'s BatchNorm sees a group of `batch_size` images of every rank "
        "at once (`true`) or each group by itself (`false`: the same numbers on any number of "
        "GPUs)",
    )
    g_lr: Rate = Field(
        default_factory=of_model("g_lr"),
        description="learning rate of G (Adam) at the start; `r3` lowers it to a quarter "
        "over the first two fifths of the run",
    )
    d_lr: Rate = Field(
        default_factory=of_model("d_lr"),
        description="learning rate of D (Adam) at the start; `r3` lowers it to a quarter "
        "over the first two fifths of the run",
    )
    beta1: Beta = Field(default_factory=of_model("beta1"), description="Adam's β1 of both networks")
    beta2: Beta | Scheduled = Field(
        default_factory=of_model("beta2"),
        description="Adam's β2 of both networks; `schedule` (`r3` only) goes from 0.9 to 0.99",
    )
    gamma: Literal["auto", "small", "constant", "paper"] = Field(
        "auto",
        json_schema_extra={"family": "r3"},
        description="`r3`: schedule of the gradient penalty's weight γ: `small` rises, `constant` "
        "stays, `paper` falls; `auto` goes from `small` at 1,000 slices to `paper` at 70,000",
    )
    augment: Literal["adaptive", "schedule", "none"] = Field(
        "adaptive",
        json_schema_extra={"family": "r3"},
        description="`r3`: how often D sees slices moved, scaled, brightened: `adaptive` by how "
        "well it tells its reals, `schedule` up to 0.3, or `none`",
    )
    augment_flips: bool = Field(
        False,
        json_schema_extra={"family": "r3"},
        description="`r3`: mirror left and right, too; where anatomy has sides, leave it off",
    )
    augment_rotation: float = Field(
        0.0,
        ge=0,
        le=15,
        json_schema_extra={"family": "r3"},
        description="`r3`: turn slices, too, by up to this much, degrees",
    )
    ema_images: Images | Scheduled = Field(
        default_factory=of_model("ema_images"),
        description="half-life of G's EMA, which draws the samples, images; 0 is none; `schedule` "
        "(`r3` only) is a twentieth of the images seen, at most 100,000",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="fixes initial weights, data order, latents and dropout"
    )

    init_from: Annotated[Uri, AfterValidator(writable_uri)] | None = Field(
        None,
        description="another run whose newest weights this one starts from, its `OUTPUT_URI`; "
        "same `model`, size and `latent_dim`",
    )
    freeze_d: int = Field(
        0,
        ge=0,
        le=64,
        description="with `init_from`: how many of D's resolutions, from the image on, stay as "
        "they are",
    )

    holdout: Annotated[float, BeforeValidator(percent)] = Field(
        default_factory=of_model("holdout"),
        title="Scores",
        ge=0,
        le=50,
        allow_inf_nan=False,
        description="volumes held out of training, which scores are taken against, percent",
    )
    volume_pattern: Annotated[str, AfterValidator(with_a_group)] = Field(
        "",
        description="regular expression whose first group, in a slice's key, names its volume (a "
        "patient, a scan); empty takes the key without its trailing slice number",
    )

    take_over: bool = Field(
        False,
        description="whether to take the run over from another job that still writes it; that job "
        "stops then (a job that has died is replaced without it)",
    )

    start_over: bool = Field(
        False,
        description="whether to train from the beginning where the run has checkpoints and none of "
        "them can be read; they are set aside in `checkpoints/unverified/`",
    )

    sample_every: Count = Field(1, title="Artifacts", description="epochs between sample grids")
    checkpoint_every: Count = Field(
        10, description="epochs between checkpoints; more where writing them would slow training"
    )
    checkpoint_minutes: float = Field(
        10.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="a checkpoint at least this often, minutes",
    )
    keep_checkpoints: Count = Field(3, description="newest checkpoints kept")
    trackers: Annotated[str, AfterValidator(known_trackers)] = Field(
        "auto",
        description="experiment trackers to tell, separated by commas: `tensorboard`, `mlflow`, "
        "`wandb`, or `none`; `auto` is `tensorboard` where it is installed",
    )

    device: Device = Field(
        "auto", title="Machine", description="what computes; `auto` takes the best there is"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="`auto` is bf16 where the hardware computes in it, else fp32"
    )
    cuda_graphs: bool = Field(
        True,
        description="whether steps run as CUDA graphs, on a GPU (`true`) or operator by operator "
        "(`false`); changes no number",
    )
    compile: bool = Field(
        False,
        description="whether the networks are compiled (torch.compile): faster steps for a longer "
        "start; numbers stay the same to rounding",
    )
    download_concurrency: int = Field(
        64, ge=1, le=256, description="objects in flight while slices are pulled"
    )
    storage_retries: int = Field(10, ge=0, le=100, description="retries of one storage request")
    storage_timeout: float = Field(
        180.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="time after which a failing storage request is given up, seconds",
    )
    sse: Literal["", "AES256", "aws:kms"] = Field(
        "", description="server-side encryption of what is written: `AES256` (SSE-S3) or `aws:kms`"
    )
    sse_kms_key_id: str = Field("", description="KMS key for `aws:kms`; default: the account's key")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="`text` or `json` lines; `auto` is a live display on a terminal"
    )

    @model_validator(mode="after")
    def _go_together(self) -> "Settings":
        if self.sse_kms_key_id and self.sse != "aws:kms":
            raise ValueError("sse_kms_key_id is set, but sse is not aws:kms")
        over = 0 if self.micro_batch == "auto" else self.micro_batch % self.batch_size
        if MODELS[self.model].couples_images and over:
            raise ValueError(
                f"micro_batch {self.micro_batch} would cut a group of batch_size "
                f"{self.batch_size} images, which {self.model}'s BatchNorm sees together; use a "
                "multiple"
            )
        for field in ("beta2", "ema_images"):
            has_schedule = getattr(MODELS[self.model], field) == "schedule"
            if getattr(self, field) == "schedule" and not has_schedule:
                raise ValueError(f"{field} is schedule, but {self.model} has none; give a number")
        if self.freeze_d and not self.init_from:
            raise ValueError("freeze_d is set, but not init_from: only learnt stages are worth it")
        if self.init_from and is_same(self.init_from, self.output_uri):
            raise ValueError(
                "init_from is output_uri itself: the same command again resumes a run; "
                "choose another place for this one"
            )
        if is_inside(self.output_uri, self.input_uri):
            raise ValueError(
                f"output_uri {self.output_uri} lies inside input_uri {self.input_uri}: the next "
                "start would train on its own samples; choose a place beside it"
            )
        return self
