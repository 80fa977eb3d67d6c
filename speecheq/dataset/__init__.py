"""MsUD, protocols and folds, phones, loaders and shards (sections 2.1 and 3.1)."""
