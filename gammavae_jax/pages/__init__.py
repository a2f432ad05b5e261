"""`report.html`: what a run has to say, on one page that needs no other file."""
