"""The optional EVM side: registry, anchored checkpoints and payouts (docs/CHAIN.md). Nothing else imports it."""
