"""The challenge's datasets: a catalogue of archives, and their download."""
