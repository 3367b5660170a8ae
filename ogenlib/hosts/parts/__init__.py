"""What methods share: prompts, adapters, heads and losses that more than one paper is made of."""
