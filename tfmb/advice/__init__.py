"""The advice on a batch size and a learning rate: measured, with intervals, and with its own cost."""
