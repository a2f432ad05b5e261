"""Why a clip has its score, and the pages that show it."""
