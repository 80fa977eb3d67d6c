"""The typed settings of a training, with the paper's values as defaults, and the checks across them."""

from dataclasses import dataclass, field

from speecheq.common.device import DEVICES
from speecheq.config.encoder import EncoderConfig
from speecheq.config.model import CITED_KINDS, ModelConfig
from speecheq.config.phonemes import PhonemesConfig
from speecheq.config.setting import setting
from speecheq.config.speech_activity import SPEECH_ACTIVITIES

# The classes of the gender head; the order is part of every trained model.
GENDERS = ("F", "M")
# The classes of MTL-AUG's augmentation head; the order is part of every model that has one.
AUGMENTATIONS = ("none", "speed", "pitch", "noise", "reverberation", "specaugment", "mixup")
# MTL-AUG's tasks: predict which augmentation a clip had, and its features before augmentation. They need no labels.
LABEL_FREE_TASKS = ("augmentation", "reconstruction")
# The feature set of section 3.2; all others are those of pretrained encoders.
FBANK = "fbank"
# Impulse responses are cut to this length, by which those of ordinary rooms have decayed by 60 dB.
RIR_SECONDS = 2.0


@dataclass
class DataConfig:
    """Training data and mini-batches."""

    corpora: str = setting(
        "all", "emotion and gender data: all of MsUD, or the target corpus", choices=("all", "target")
    )
    corpus_sampling: float = setting(
        1.0,
        "exponent of the sizes of corpora in their shares of an epoch of emotion clips; 1: by size, each clip once; 0: "
        "evenly",
        low=0.0,
        high=1.0,
    )
    target_share: float | None = setting(
        None,
        "share of the target corpus in an epoch of emotion clips; null: as data.corpus_sampling says",
        low=0.0,
        high=0.99,
    )
    batch_size: int = setting(32, "clips in a mini-batch of each of the three streams (section 3.2)", low=2)
    features: str = setting(FBANK, "feature set: fbank, or that of a pretrained encoder (run.sh --features NAME)")
    input: str = setting("stored", "stored features, or waveforms to be augmented", choices=("stored", "waveform"))
    versions: int = setting(
        0,
        "different crops and changes of a clip's waveform, which epochs take in turn; 0: new ones in each epoch",
        low=0,
    )
    cache_states: bool = setting(
        False, "whether states that are computed of waveforms are kept, in DATA/NAME/cache; needs data.versions"
    )
    max_seconds: float = setting(6.0, "seconds to which emotion and gender clips are cropped, at random", low=0.1)
    batches: str = setting(
        "clips",
        "a mini-batch of emotion clips: any, or those of a dialogue in their order, for model.context dialogue",
        choices=("clips", "dialogue"),
    )
    phoneme_batch_seconds: float = setting(320.0, "seconds of speech in a phoneme mini-batch, at most", low=1.0)
    cmvn: str = setting(
        "global",
        "normalisation of the features: by the training data, by each clip, or by all clips of the set of its speaker, "
        "which for test speakers is another protocol",
        choices=("utterance", "global", "none", "speaker"),
    )
    unlabelled: bool = setting(False, "whether unlabelled speech is trained on too, without labels (MTL-AUG)")
    dev_phoneme_clips: int = setting(500, "dev utterances, at most, whose phones are scored every epoch", low=1)
    speech_activity: str = setting(
        "none",
        "what found the speech of the clips, outside of which nothing is trained on and predicted",
        choices=SPEECH_ACTIVITIES,
    )
    workers: int | None = setting(None, "loading processes of a stream; null: 1, or 4 with a GPU; 0: none", low=0)

    def version_of(self, epoch: int) -> int:
        """Which of the crops and changes of each clip an epoch takes."""
        return epoch % self.versions if self.versions else epoch


@dataclass
class LossConfig:
    """The losses and their weights (equations 1 to 4)."""

    gamma: float = setting(10.0, "focusing exponent gamma of the focal loss (equation 2); the paper's is 10", low=0.0)
    alpha: float = setting(1.0, "weight alpha of the CCC loss for EIS (equation 4); with 0 EIS is not scored", low=0.0)
    beta: float = setting(0.1, "weight beta of the CTC loss for phonemes (equation 4); 0: no such task", low=0.0)
    eta: float = setting(0.1, "weight eta of the focal loss for gender (equation 4); 0: no such task", low=0.0)
    augmentation: float = setting(0.0, "weight of the augmentation loss (MTL-AUG); 0: no such task", low=0.0)
    reconstruction: float = setting(0.0, "weight of the reconstruction loss (MTL-AUG); 0: no such task", low=0.0)
    finetune_beta: float = setting(0.01, "beta at the end of the fine-tuning stage (section 3.2)", low=0.0)
    finetune_eta: float = setting(0.01, "eta at the end of the fine-tuning stage (section 3.2)", low=0.0)
    label_smoothing: float = setting(0.0, "part of ESC and gender labels spread over all classes", low=0.0, high=0.9)
    soft_labels: bool = setting(False, "learn ESC from the votes of listeners, of clips that were prepared with them")
    class_balance: str = setting("none", "weights of ESC classes, by their clips", choices=("none", "inverse"))
    label_ignore: str = setting("fill", "treatment of clips without EIS (Algorithm 1)", choices=("fill", "drop"))
    ctc_backend: str = setting("auto", "library for CTC; auto: see losses/ctc.py", choices=("auto", "k2", "torch"))


@dataclass
class AugmentConfig:
    """Waveform augmentation (section 2.5): how often and how strong; a probability of 0 turns a change off."""

    one_of: str = setting(
        "",
        "names of changes, of which each clip has one or none (MTL-AUG); if empty, each change has its own probability",
    )
    speed_low: float = setting(0.85, "slowest speed, of tempo and pitch alike (one_of only)", low=0.5, high=2.0)
    speed_high: float = setting(1.15, "fastest speed", low=0.5, high=2.0)
    pitch_probability: float = setting(1.0, "part of the clips whose pitch is shifted", low=0.0, high=1.0)
    pitch_low: float = setting(-3.0, "lowest shift of the pitch in semitones", low=-12.0, high=12.0)
    pitch_high: float = setting(3.0, "highest shift of the pitch in semitones", low=-12.0, high=12.0)
    tempo_probability: float = setting(1.0, "part of the clips whose tempo is changed", low=0.0, high=1.0)
    tempo_low: float = setting(0.8, "slowest tempo; the duration is divided by it", low=0.5, high=2.0)
    tempo_high: float = setting(1.3, "fastest tempo", low=0.5, high=2.0)
    reverb_probability: float = setting(0.5, "part of the clips that are reverberated", low=0.0, high=1.0)
    t60_low: float = setting(0.2, "shortest T60 in seconds, if simulated", low=0.05, high=RIR_SECONDS)
    t60_high: float = setting(0.8, "longest T60 in seconds, if simulated", low=0.05, high=RIR_SECONDS)
    direct_low: float = setting(0.0, "lowest direct-to-reverberant ratio in dB, if simulated", low=-20.0, high=40.0)
    direct_high: float = setting(12.0, "highest direct-to-reverberant ratio in dB", low=-20.0, high=40.0)
    noise_probability: float = setting(0.5, "part of the clips that get a noise, if there are any", low=0.0, high=1.0)
    snr_low: float = setting(10.0, "lowest signal-to-noise ratio in dB (section 2.5)", low=-20.0, high=80.0)
    snr_high: float = setting(25.0, "highest signal-to-noise ratio in dB (section 2.5)", low=-20.0, high=80.0)
    telephone_probability: float = setting(
        0.0, "part of the clips that go through a telephone: 300 to 3400 Hz, mu-law, A-law or GSM", low=0.0, high=1.0
    )
    noise_hours: float = setting(10.0, "hours of noise held in memory, at most; an hour takes 0.23 GB", low=0.01)

    def validate(self) -> None:
        """Raise ValueError for a range whose ends are in the wrong order, or an unknown name in ``one_of``."""
        for name in self.chosen():
            if name not in AUGMENTATIONS[1:]:
                raise ValueError(f"augment.one_of names {name!r}; it must be some of {', '.join(AUGMENTATIONS[1:])}")
        for name in ("speed", "pitch", "tempo", "t60", "direct", "snr"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if low > high:
                raise ValueError(f"{name}_low is {low:g}, above {name}_high, which is {high:g}")

    @property
    def active(self) -> bool:
        """Whether any clip is changed at all."""
        return bool(self.one_of) or any(
            (
                self.pitch_probability,
                self.tempo_probability,
                self.reverb_probability,
                self.noise_probability,
                self.telephone_probability,
            )
        )

    def chosen(self) -> tuple[str, ...]:
        """The names in ``one_of``."""
        return tuple(self.one_of.split())

    def uses(self, kind: str) -> bool:
        """Whether recordings of that kind, noise or rir, are used if available."""
        if self.one_of:
            return {"noise": "noise", "rir": "reverberation"}[kind] in self.chosen()
        return {"noise": self.noise_probability, "rir": self.reverb_probability}[kind] > 0


@dataclass
class SpecAugmentConfig:
    """Masks over the normalised features of training clips (Park et al., 2019); without masks it is off."""

    time_masks: int = setting(0, "masks of successive frames in each clip", low=0)
    time_width: float = setting(0.25, "seconds that the widest mask of frames covers", low=0.0)
    time_share: float = setting(0.2, "part of the clip that a mask of frames covers, at most", low=0.0, high=1.0)
    frequency_masks: int = setting(0, "masks of successive filter banks in each clip", low=0)
    frequency_width: int = setting(10, "filter banks that the widest mask of them covers", low=0)

    @property
    def active(self) -> bool:
        """Whether any clip is masked at all."""
        return bool(self.time_masks or self.frequency_masks)


@dataclass
class MixupConfig:
    """Mixup of pairs of clips of the emotion and gender streams, features and labels (Zhang et al., 2018)."""

    alpha: float = setting(0.0, "alpha of the Beta distribution of a clip's own share; 0: no mixup", low=0.0)


@dataclass
class SharConfig:
    """Sequential reading of training clips from Lhotse Shar (dataset/shard_plan.py, docs/scale.md)."""

    use: bool = setting(False, "whether training clips are read from the shards of stage 3 (run.sh --shar true)")
    lanes: int = setting(8, "readers of each mini-batch; a multiple of the number of training processes", low=1)
    parts: int = setting(4, "groups of readers that give mini-batches in turn; at least data.workers", low=1)
    buffer: int = setting(4096, "clips of a stream, over all readers, that are shuffled together", low=1)


@dataclass
class OptimConfig:
    """The optimiser, its schedule and the length of the training (section 3.2)."""

    epochs: int | None = setting(60, "passes over the emotion stream; with null max_steps decides", low=1)
    max_steps: int | None = setting(None, "steps after which training ends, if epochs does not end it first", low=1)
    optimizer: str = setting(
        "adam", "adam (section 3.2), or adamw, which decays no biases and norms", choices=("adam", "adamw")
    )
    learning_rate: float = setting(1e-4, "learning rate of the optimiser (section 3.2)", low=0.0)
    weight_decay: float = setting(1e-5, "weight decay of the optimiser (section 3.2)", low=0.0)
    ema: float = setting(0.0, "decay of the averaged weights that best.pt holds; 0: no average", low=0.0, high=0.99999)
    warmup_steps: int = setting(0, "steps in which the learning rate rises linearly from 0", low=0)
    schedule: str = setting(
        "constant", "learning rate after the warm-up; step: see decay", choices=("constant", "cosine", "step")
    )
    decay: float = setting(0.1, "schedule step: factor of the learning rate at each decay", low=0.0, high=1.0)
    decay_part: float = setting(
        0.2, "schedule step: part of the training from one decay to the next", low=0.001, high=1.0
    )
    select: str = setting(
        "best", "epoch that best.pt holds: that with the best UA on the dev part, or the last", choices=("best", "last")
    )
    finetune: float = setting(0.0, "part of the training, at its end, that is fine-tuning", low=0.0, high=1.0)
    finetune_learning_rate: float = setting(1e-6, "learning rate at the end of fine-tuning (section 3.2)", low=0.0)
    clip_gradient: float = setting(5.0, "norm that longer gradients are scaled down to; 0 never scales", low=0.0)
    max_bad_steps: int = setting(10, "steps in a row without a finite loss or gradient that end training", low=1)


@dataclass
class RunConfig:
    """Seed, device, threads, precision and checkpoints of a training."""

    seed: int = setting(1, "seed of weights, sampling, cropping and augmentation", low=0)
    device: str = setting("auto", "training device; auto: a GPU of CUDA if there is one", choices=DEVICES)
    threads: int = setting(0, "threads of torch on the CPU; 0 leaves the number to torch", low=0)
    precision: str = setting("fp32", "number format of the model; losses use fp32", choices=("fp32", "bf16", "fp16"))
    checkpoint_steps: int = setting(200, "steps from one last.pt to the next, which ends an epoch too", low=1)


@dataclass
class Config:
    """All settings of one training."""

    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    specaugment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    mixup: MixupConfig = field(default_factory=MixupConfig)
    shar: SharConfig = field(default_factory=SharConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    phonemes: PhonemesConfig = field(default_factory=PhonemesConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def validate(self) -> None:
        """Raise ValueError for settings that do not fit each other; single values are checked when they are set."""
        self.model.validate()
        self.augment.validate()
        self._validate_speeds()
        self._validate_encoder_training()
        self._validate_cited()
        self._validate_cache()
        if self.optim.epochs is None and self.optim.max_steps is None:
            raise ValueError("optim.epochs and optim.max_steps are both null, so training would never end")
        if self.optim.schedule != "constant" and self.optim.finetune > 0:
            raise ValueError("optim.finetune is the last stage of the constant schedule; set it to 0 with another")
        if self.specaugment.active and self.data.cmvn == "none":
            raise ValueError(
                "specaugment masks with 0, which is the mean of normalised features only; with data.cmvn none set its "
                "masks to 0"
            )
        if self.shar.use and self.data.batch_size % self.shar.lanes:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}, but from shards it must be a multiple of "
                f"shar.lanes, which is {self.shar.lanes}"
            )
        if self.shar.use and (self.data.workers or 0) > self.shar.parts:
            raise ValueError(
                f"data.workers is {self.data.workers}, but only shar.parts, which is {self.shar.parts}, "
                "can load from shards"
            )
        if self.shar.use and self.data.corpus_sampling != 1:
            raise ValueError(
                f"data.corpus_sampling is {self.data.corpus_sampling:g}, but shards are read in their order, each clip "
                "once; set it to 1, or leave --shar out"
            )
        if self.shar.use and self.data.target_share is not None:
            raise ValueError("data.target_share has no effect on shards; set it to null, or leave --shar out")
        chosen = self.augment.chosen()
        if chosen and self.data.input != "waveform":
            raise ValueError("augment.one_of changes waveforms, so data.input must be waveform")
        if "specaugment" in chosen and not self.specaugment.active:
            raise ValueError("augment.one_of names specaugment, but specaugment has no masks; set its time_masks")
        if "mixup" in chosen and self.mixup.alpha == 0:
            raise ValueError("augment.one_of names mixup, but mixup.alpha is 0; set it to 0.5, say")
        if self.loss.augmentation > 0 and not chosen:
            raise ValueError("loss.augmentation is the loss of what augment.one_of names, which is empty")
        if self.loss.reconstruction > 0 and not chosen:
            raise ValueError("loss.reconstruction is of features before augmentation; name some in augment.one_of")
        if self.loss.reconstruction > 0 and not self.model.decoder_channels:
            raise ValueError("loss.reconstruction needs a decoder; set model.decoder_channels to 64, say")
        if self.data.unlabelled and self.data.cmvn == "speaker":
            raise ValueError("data.cmvn speaker needs speakers, which unlabelled speech does not name")
        if self.data.features != FBANK and self.shar.use and self.data.input == "stored":
            raise ValueError("shards hold no encoder states: with --shar true set data.input to waveform")
        if self.data.unlabelled and not self.label_free_tasks():
            raise ValueError("data.unlabelled has no loss without labels; set loss.augmentation or loss.reconstruction")

    def _validate_cited(self) -> None:
        """Raise ValueError for what a cited system does not do."""
        kind = self.model.kind
        if kind in CITED_KINDS and self.loss.beta > 0:
            raise ValueError(f"model.kind {kind} learns no phonemes; set loss.beta to 0")
        dialogues = (self.model.context, self.data.batches) != ("none", "clips")
        if dialogues and (kind, self.model.context, self.data.batches) != ("hgfm", "dialogue", "dialogue"):
            raise ValueError(
                f"model.context is {self.model.context} and data.batches {self.data.batches}, but both are dialogue, "
                "with model.kind hgfm alone, or none is (none and clips)"
            )
        resampled = self.data.corpus_sampling != 1 or self.data.target_share is not None
        if dialogues and (self.shar.use or resampled):
            raise ValueError(
                "data.batches dialogue has no shards, data.corpus_sampling and data.target_share; leave them out (1, "
                "null)"
            )
        loss = self.loss
        plain = (loss.gamma, loss.label_smoothing, loss.soft_labels, loss.class_balance, self.mixup.alpha)
        if kind == "attention_ctc" and plain != (0, 0, False, "none", 0):
            raise ValueError(
                "model.kind attention_ctc learns emotions by CTC, without focal loss, smoothing, soft labels, class "
                "weights and mixup; set loss.gamma, loss.label_smoothing and mixup.alpha to 0, loss.soft_labels to "
                "false and loss.class_balance to none"
            )

    def _validate_speeds(self) -> None:
        """Raise ValueError if there are copies of clips at other speeds, and none is stored."""
        if self.encoder.speeds and (self.data.input != "stored" or self.model.kind == "fusion"):
            raise ValueError(
                f"the feature set {self.data.features} holds states at the speeds {self.encoder.speeds}, which "
                "data.input waveform and model.kind fusion do not take; give a feature set without speeds"
            )

    def _validate_cache(self) -> None:
        """Raise ValueError if states are to be kept that do not come back, or versions to be made of stored ones."""
        if self.data.versions and self.data.input != "waveform":
            raise ValueError("data.versions are of waveforms; set data.input to waveform, or data.versions to 0")
        if not self.data.cache_states:
            return
        if not self.data.versions:
            raise ValueError("data.cache_states keeps what never comes back, unless data.versions is set, to 2, say")
        if self.data.features == FBANK or self.encoder.is_trained:
            raise ValueError(
                "data.cache_states keeps the states of an encoder that is not trained; give --features and leave "
                "encoder.train at none, or data.cache_states out"
            )

    def _validate_encoder_training(self) -> None:
        """Raise ValueError if the encoder is to be trained, and cannot be."""
        top, train = self.encoder.top_blocks(), f"encoder.train is {self.encoder.train}, but "
        if not self.encoder.is_trained:
            return
        if self.encoder.is_signal:
            raise ValueError(f"{train}the features are those of {self.encoder.model}, which is no encoder")
        if self.data.features == FBANK:
            raise ValueError(f"{train}the features are fbank, which no encoder makes; give --features")
        if self.data.input != "waveform":
            raise ValueError(f"{train}stored states are those of the encoder as it was; set data.input to waveform")
        if self.data.cmvn == "speaker":
            raise ValueError(
                f"{train}data.cmvn speaker takes statistics of all clips of a speaker before the training, in which "
                "the encoder's states change; set it to global or utterance"
            )
        if self.augment.one_of:
            raise ValueError(f"{train}augment.one_of crops features before the model, which has the encoder within it")
        blocks = max(self.encoder.layer_numbers())
        if blocks < max(1, top):
            raise ValueError(f"{train}of the encoder {blocks} blocks are used, up to the highest of its layers")
        if self.optim.learning_rate == 0:
            raise ValueError(f"{train}optim.learning_rate, whose course the encoder's follows, is 0")

    def label_free_tasks(self) -> tuple[str, ...]:
        """MTL-AUG's tasks whose weight is not 0."""
        return tuple(task for task in LABEL_FREE_TASKS if getattr(self.loss, task) > 0)

    def tasks(self) -> list[str]:
        """The streams of training: emotion always, the others if their settings enable them."""
        tasks = ["emotion"]
        if self.loss.eta > 0:
            tasks.append("gender")
        if self.loss.beta > 0:
            tasks.append("phoneme")
        if self.data.unlabelled:
            tasks.append("unlabelled")
        return tasks
