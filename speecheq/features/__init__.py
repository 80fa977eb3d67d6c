"""Filter banks, reading and resampling audio, stored features, augmentation (section 2.5)."""
