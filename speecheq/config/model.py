"""The sizes and options of the models: the group ``model`` of a training's settings."""

from dataclasses import dataclass

from speecheq.config.setting import check_settings, setting

# Four systems of the paper's Table 4, by their own descriptions (docs/cited_systems.md).
CITED_KINDS = ("attention_ctc", "hgfm", "multihead_gender", "head_fusion")
MODEL_KINDS = ("speecheq", "baseline", "cnn_blstm", "light", "fusion", *CITED_KINDS)
# Kinds that are built on the states of a pretrained encoder; the others take them or filter banks.
ENCODER_KINDS = ("light", "fusion")
# What ``fusion`` has beside the encoder's states, in front of them: two successive fbank frames of 80 filter banks.
STACKED_FBANK = 160


@dataclass
class ModelConfig:
    """Sizes of SpeechEQ (section 2.3, Figure 2), named as in ECAPA-TDNN; the defaults are the paper's.

    The baseline and the CNN-BLSTM derive their other sizes from ``channels`` and ignore ``mfa_channels``, ``scale``,
    ``bottleneck`` and ``res_bigru``; ``light`` ignores these but ``bottleneck``. The cited systems have sizes of their
    own.
    """

    kind: str = setting(
        "speecheq",
        "the model: SpeechEQ, the baseline CNN + RNN + attention (section 3.3), CNN-BLSTM, an encoder for MTL-AUG, "
        "light, which pools the states of a pretrained encoder, fusion of light and SpeechEQ's backbone on fbank, or a "
        "system that the paper cites (docs/cited_systems.md)",
        choices=MODEL_KINDS,
    )
    feature_dim: int = setting(80, "values of a frame: filter banks, or the states of all chosen layers", low=1)
    encoder_layers: int = setting(0, "layers of a pretrained encoder whose states a frame holds; 0: fbank", low=0)
    encoder_dim: int = setting(0, "width of each of these layers", low=0)
    projection: int = setting(256, "width to which the weighted sum of the encoder's layers is projected", low=1)
    channels: int = setting(
        256, "width C of every SE-Res2Block, of all layers of the baseline, or of light's phoneme branch", low=2
    )
    mfa_channels: int = setting(1536, "width of the multi-layer feature aggregation", low=1)
    scale: int = setting(8, "channel groups of a Res2 convolution", low=2)
    bottleneck: int = setting(128, "inner width of squeeze-excitation and of the attentive pooling", low=1)
    pooling: str = setting(
        "attentive",
        "how light sums up a clip: attentive statistics of the projected layers, mean and standard deviation of all "
        "states, or their mean alone, which carries over best to other corpora",
        choices=("attentive", "statistics", "mean"),
    )
    pooled_layers: int = setting(
        0,
        "pooling statistics and mean: how many of the encoder's layers, the lowest first, emotion stands on; 0: all",
        low=0,
    )
    embedding_dim: int = setting(192, "width of the utterance embedding; the cited systems have their own", low=1)
    frame_shift: float = setting(0.01, "seconds from one frame of the features to the next", low=0.0)
    ctc_labels: str = setting(
        "segments",
        "attention_ctc: a clip's emotion once for each segment of louder frames, or a single time",
        choices=("segments", "single"),
    )
    heads_joined: str = setting(
        "concat",
        "head_fusion: its heads one below the other, as in its code, or their mean, as in its paper",
        choices=("concat", "mean"),
    )
    attention_axis: str = setting(
        "channel",
        "head_fusion: the axis of the softmax; channel, as its code has it, or space",
        choices=("channel", "space"),
    )
    context: str = setting(
        "none",
        "hgfm: utterances by themselves, or within their dialogue, which is a mini-batch (data.batches dialogue)",
        choices=("none", "dialogue"),
    )
    res_bigru: str = setting(
        "before_se",
        "place of the Res-BiGRU in each SE-Res2Block: before or after squeeze-excitation, or none",
        choices=("before_se", "after_se", "none"),
    )
    num_phones: int = setting(202, "phones in the table; phone 0 is silence and the blank of CTC", low=2)
    num_esc: int = setting(9, "emotion state categories", low=2)
    num_genders: int = setting(2, "genders", low=2)
    num_augmentations: int = setting(0, "classes of MTL-AUG's augmentation head; 0: no such head", low=0)
    decoder_channels: int = setting(0, "inner width of MTL-AUG's decoder of features; 0: no decoder", low=0)
    batch_statistics: str = setting(
        "shared",
        "running statistics of batch norm: one set for all streams, or one for phonemes and unlabelled speech and one "
        "for the other streams",
        choices=("shared", "per_stream"),
    )
    dropout: float = setting(
        0.0,
        "dropout in front of every head, and of light's pooling (statistics: after it), in training only",
        low=0.0,
        high=0.99999,
    )
    phoneme_dropout: float | None = setting(None, "that of the phoneme head; null: dropout", low=0.0, high=0.99999)

    @property
    def pooled_width(self) -> int:
        """Values of a frame, of an encoder's layers, that light pools as they are; the first ones."""
        return (self.pooled_layers or self.encoder_layers) * self.encoder_dim

    def validate(self) -> "ModelConfig":
        """Return self. Raises ValueError, with name and range, for a setting that does not fit its range or another."""
        check_settings(self)
        refused = f"channels is {self.channels}, but it must be "
        has_ecapa = self.kind in ("speecheq", "fusion")
        if self.kind in ("baseline", "cnn_blstm") and self.channels % 2:
            raise ValueError(f"{refused}even: half for each direction of the LSTM")
        if has_ecapa and self.channels % self.scale:
            raise ValueError(f"{refused}a multiple of scale, which is {self.scale}")
        if has_ecapa and self.res_bigru != "none" and self.channels % 2:
            raise ValueError(f"{refused}even: half for each direction of the Res-BiGRU")
        if self.kind in CITED_KINDS and self.decoder_channels:
            raise ValueError(
                f"decoder_channels is {self.decoder_channels}, but {self.kind} has no decoder; set it to 0"
            )
        if self.kind == "fusion" and self.decoder_channels:
            raise ValueError(
                f"decoder_channels is {self.decoder_channels}, but fusion, whose branches differ in frame rate, has no "
                "decoder; set it to 0, or model.kind to light or speecheq"
            )
        if self.kind == "light" and self.pooling != "attentive" and self.decoder_channels:
            raise ValueError(
                f"decoder_channels is {self.decoder_channels}, but with pooling {self.pooling} nothing is learned from "
                "frames, so there is nothing to decode; set it to 0, or pooling to attentive"
            )
        if self.kind in ENCODER_KINDS and self.pooled_layers > self.encoder_layers:
            raise ValueError(
                f"pooled_layers is {self.pooled_layers}, but the features have {self.encoder_layers} of the encoder's "
                "layers"
            )
        if self.kind in ENCODER_KINDS and not self.encoder_layers:
            raise ValueError(
                f"kind is {self.kind}, which takes the states of a pretrained encoder, but the features are fbank; "
                "choose a feature set of an encoder (run.sh --features whisper-base), or model.kind speecheq"
            )
        expected = self.encoder_layers * self.encoder_dim + (STACKED_FBANK if self.kind == "fusion" else 0)
        if self.encoder_layers and self.feature_dim != expected:
            raise ValueError(
                f"feature_dim is {self.feature_dim}, but {self.encoder_layers} layers of {self.encoder_dim} make "
                f"{expected} values a frame"
            )
        return self
