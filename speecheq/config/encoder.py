"""The settings of a pretrained encoder: the group ``encoder`` of a training's settings."""

from dataclasses import dataclass

from speecheq.config.setting import setting

# The settings of EncoderConfig that users set; the others are those of the feature set.
ENCODER_TRAINING = ("train", "learning_rate", "layer_decay", "frozen_steps", "lora_rank", "lora_alpha")

# How ``model`` begins where librosa or openSMILE computes features.
SIGNALS = ("librosa:", "opensmile:")
# Seconds from one vector to the next where a clip has one alone.
ONE_A_CLIP = 3600.0


@dataclass
class EncoderConfig:
    """A pretrained encoder, whose states are the features.

    conf/features/NAME.yaml gives the first of them, stage 2 finds the next (source to frame_shift), and the others
    (ENCODER_TRAINING) say whether and how the encoder is trained with the model.
    """

    model: str = setting("", "folder of the encoder, or its id on the Hugging Face hub")
    layers: str = setting("", "layers whose states are taken, such as 1 2 3: k is after block k, 0 before block 1")
    padding: str = setting(
        "none", "Whisper: clips as long as they are, or padded to 30 s and trimmed", choices=("none", "30s")
    )
    normalise: str = setting(
        "auto",
        "whether each waveform gets mean 0 and deviation 1; auto: as its files say; level (Whisper): only -26 dBFS",
        choices=("auto", "yes", "no", "level"),
    )
    stored_as: str = setting("float16", "number format of stored states", choices=("float16", "float32"))
    speeds: str = setting(
        "", "speeds of further copies of each clip that stage 2 stores and training draws from, such as 0.9 1.1"
    )
    licence: str = setting("", "licence of the encoder's weights, for model cards")
    source: str = setting("", "name of the encoder for model cards, whatever its folder is called here")
    dim: int = setting(0, "width of a state", low=0)
    digest: str = setting("", "digest of the encoder's files and of the settings above")
    frame_shift: float = setting(0.02, "seconds from one state to the next", low=0.0)
    train: str = setting(
        "none",
        "what is trained of the encoder: none, top:N (the last N blocks that are used), all (but the convolutions of a "
        "wav2vec 2.0 and its kin), or lora (small matrices beside those of all blocks)",
    )
    learning_rate: float | None = setting(None, "the encoder's learning rate; null: 1e-5, with lora 1e-4", low=0.0)
    layer_decay: float = setting(1.0, "factor of the learning rate from each block to the one below", low=0.0, high=1.0)
    frozen_steps: int = setting(0, "steps at the start in which the encoder is not trained", low=0)
    lora_rank: int = setting(8, "rank r of lora's matrices", low=1)
    lora_alpha: float = setting(16.0, "alpha of lora, whose product of matrices is scaled by alpha / r", low=0.0)

    @property
    def is_signal(self) -> bool:
        """Whether these are no encoder's states, but features of librosa or openSMILE (features/encoders/signal.py)."""
        return self.model.startswith(SIGNALS)

    def layer_numbers(self) -> tuple[int, ...]:
        """The numbers in ``layers``. Raises ValueError if they are not whole numbers in rising order."""
        words = self.layers.replace(",", " ").split()
        numbers = tuple(int(word) for word in words if word.isdecimal())
        if not words or len(numbers) < len(words) or list(numbers) != sorted(set(numbers)):
            raise ValueError(f"layers is {self.layers!r}, but it must be whole numbers in rising order, such as 1 2 3")
        return numbers

    def speed_numbers(self) -> tuple[float, ...]:
        """The numbers in ``speeds``. Raises ValueError if they are not different speeds from 0.5 to 2 beside 1."""
        words = self.speeds.replace(",", " ").split()
        try:
            numbers = tuple(map(float, words))
        except ValueError:
            numbers = ()
        if len(set(numbers)) < len(words) or not all(0.5 <= number <= 2 and number != 1 for number in numbers):
            raise ValueError(
                f"speeds is {self.speeds!r}, but it must be different speeds from 0.5 to 2 beside 1, such as 0.9 1.1"
            )
        return numbers

    @property
    def is_trained(self) -> bool:
        """Whether anything of the encoder is trained."""
        return self.train != "none"

    def top_blocks(self) -> int:
        """N of ``train: top:N``, 0 for its other values. Raises ValueError for a value that is none of them."""
        if self.train in ("none", "all", "lora"):
            return 0
        kind, _, number = self.train.partition(":")
        if kind != "top" or not number.isdecimal() or int(number) < 1:
            raise ValueError(f"encoder.train is {self.train!r}, but it must be none, top:N, all or lora")
        return int(number)

    def base_learning_rate(self) -> float:
        """The learning rate of the highest block; ``layer_decay`` lowers that of each block below."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-4 if self.train == "lora" else 1e-5
