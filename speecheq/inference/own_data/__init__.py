"""From a table of one's own clips to a model: what ``speecheq finetune`` finds out, decides and runs."""
