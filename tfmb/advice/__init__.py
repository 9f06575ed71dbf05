"""Which batch size and which learning rate: measured, with intervals, and what it cost to find out."""
