"""What the losses share: base classes, scores, column blocks and checks."""
