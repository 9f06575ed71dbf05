"""The outer loop, on the host: epochs, calls of many updates each, and reports of what came out."""
