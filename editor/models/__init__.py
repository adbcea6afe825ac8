"""Where a model comes from, how it is opened, and DDIM steps with it."""
