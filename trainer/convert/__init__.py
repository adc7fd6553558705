"""Official CenterNet2 checkpoints -> ours."""
