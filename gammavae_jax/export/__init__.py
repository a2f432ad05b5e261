"""One machine's detector in files that other programs can run, without this package."""
