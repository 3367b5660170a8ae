"""What several protocols share: plans, the loading of what they name, and tests of two sides."""
