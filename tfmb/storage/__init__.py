"""Files that are whole or not there: opening, writing, checking, locking."""
