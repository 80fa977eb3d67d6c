"""The settings of a model, and what each may be."""

from dataclasses import dataclass, fields

KINDS = ("speecheq", "baseline", "cnn_blstm")
# MTL-AUG: which augmentation a clip had, and its features before that.
LABEL_FREE_TASKS = ("augmentation", "reconstruction")
BATCH_STATISTICS = ("shared", "per_stream")
RES_BIGRU_PLACES = ("before_se", "after_se", "none")


@dataclass
class ModelConfig:
    """Sizes of SpeechEQ (section 2.3, Figure 2); the defaults are the paper's, see also ECAPA-TDNN for its names.

    The baseline and the CNN-BLSTM derive their other sizes from ``channels`` and have no use for ``mfa_channels``,
    ``scale``, ``bottleneck`` (the baseline) and ``res_bigru``.
    """

    # or baseline: CNN + RNN + attention (section 3.3), or cnn_blstm: an encoder for MTL-AUG
    kind: str = "speecheq"
    feature_dim: int = 80  # filter banks a frame
    channels: int = 256  # C, the width of every SE-Res2Block; of all layers of the baseline
    mfa_channels: int = 1536  # width of the multi-layer feature aggregation
    scale: int = 8  # channel groups of a Res2 convolution
    bottleneck: int = 128  # inner width of squeeze-excitation and of the pooling's attention
    embedding_dim: int = 192
    res_bigru: str = "before_se"  # where a Res-BiGRU sits in each SE-Res2Block: before_se, after_se or none
    num_phones: int = 202  # the phone table with silence = CTC blank = 0
    num_esc: int = 9
    num_genders: int = 2
    num_augmentations: int = 0  # types that MTL-AUG's head tells apart; 0: there is no such head
    decoder_channels: int = 0  # inner width of MTL-AUG's decoder, which reconstructs the features; 0: there is none
    # running statistics of batch norm: one set for all streams, or the phoneme stream's and the unlabelled stream's
    # apart from the others'
    batch_statistics: str = "shared"
    dropout: float = 0.0  # in front of every head, training only

    def validate(self) -> "ModelConfig":
        """Return self; raise ValueError that names the field and its allowed range."""
        least = dict(
            feature_dim=1,
            channels=2,
            mfa_channels=1,
            scale=2,
            bottleneck=1,
            embedding_dim=1,
            num_phones=2,
            num_esc=2,
            num_genders=2,
            num_augmentations=0,
            decoder_channels=0,
        )
        for field in fields(self):
            value = getattr(self, field.name)
            lowest = least.get(field.name)
            if lowest is not None and (isinstance(value, bool) or not isinstance(value, int) or value < lowest):
                raise ValueError(f"{field.name} is {value!r}; it must be a whole number of at least {lowest}")
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if self.kind != "speecheq" and self.channels % 2:
            raise ValueError(f"channels is {self.channels}; it must be even: half for each direction of the LSTM")
        if self.kind == "speecheq" and self.channels % self.scale:
            raise ValueError(f"channels is {self.channels}; it must be a multiple of scale ({self.scale})")
        if self.res_bigru not in RES_BIGRU_PLACES:
            raise ValueError(f"res_bigru is {self.res_bigru!r}; it must be one of {', '.join(RES_BIGRU_PLACES)}")
        if self.batch_statistics not in BATCH_STATISTICS:
            raise ValueError(
                f"batch_statistics is {self.batch_statistics!r}; it must be one of {', '.join(BATCH_STATISTICS)}"
            )
        if self.kind == "speecheq" and self.res_bigru != "none" and self.channels % 2:
            raise ValueError(f"channels is {self.channels}; it must be even: half for each direction of the Res-BiGRU")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; it must be a number from 0 up to, but not including, 1")
        return self
