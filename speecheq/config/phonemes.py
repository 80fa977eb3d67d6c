"""The settings of what CTC learns of the words of an utterance."""

from dataclasses import dataclass

from speecheq.config.setting import setting

# The first of each is the default.
PRONUNCIATIONS = ("first", "all")
SILENCES = ("none", "optional")


def lattice_options(pronunciations: str, silence: str) -> dict[str, str]:
    """These settings where they are not the defaults, which are no part of a stage's key."""
    chosen = {"pronunciations": pronunciations, "silence": silence}
    return {name: value for name, value in chosen.items() if value not in (PRONUNCIATIONS[0], SILENCES[0])}


@dataclass
class PhonemesConfig:
    """What CTC sums over, beside blanks and repeats; stage 3 must have written it too (run.sh --pronunciations)."""

    pronunciations: str = setting(
        "first",
        "pronunciations of a word that has several: the first, or the sum over all (needs k2)",
        choices=PRONUNCIATIONS,
    )
    silence: str = setting(
        "none",
        "silence between words: the blank, or also a unit of its own that may stand there (needs k2)",
        choices=SILENCES,
    )
    learning_rate_factor: float = setting(
        1.0,
        "factor of the learning rate of what learns phonemes alone: the phoneme head, and the branch of light",
        low=0.0,
    )

    @property
    def lattices(self) -> bool:
        """Whether an utterance has several label sequences."""
        return self.pronunciations == "all" or self.silence == "optional"

    def pause(self, num_phones: int) -> int | None:
        """The label of silence between words, the last of a table of ``num_phones``; None where that is the blank."""
        return num_phones - 1 if self.silence == "optional" else None
