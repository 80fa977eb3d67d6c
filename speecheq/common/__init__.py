"""Files, logs, progress, signals, stage stamps and transfers: nothing here knows speech."""
