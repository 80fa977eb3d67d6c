"""Files, logs, progress, signals, stage stamps and downloads: nothing specific to speech."""
