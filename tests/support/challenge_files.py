"""Ground truth in the official evaluators' format, and the metrics of score files."""

from gammavae_jax.evaluation.metrics import evaluate_section
from gammavae_jax.evaluation.score_files import read_score_files

NAMES = [
    f"section_00_{domain}_test_{label}_{k:04}_noAttribute.wav"
    for domain in ("source", "target")
    for label in ("normal", "anomaly")
    for k in range(3)
]
IS_ANOMALY = ["anomaly" in name for name in NAMES]
IS_TARGET = ["target" in name for name in NAMES]


def write_truth(folder, machine="fan"):
    """Write anonymous clips' ground truth in reverse order; return the label file."""
    name = f"ground_truth_{machine}_section_00_test.csv"
    columns = {
        "data": map(int, IS_ANOMALY),
        "domain": map(int, IS_TARGET),
        "attributes": (name.removesuffix(".wav") for name in NAMES),
    }
    for kind, values in columns.items():
        path = folder / f"ground_truth_{kind}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"section_00_{k:04}.wav,{v}\n" for k, v in enumerate(values)]
        path.write_text("".join(reversed(lines)))
    return folder / "ground_truth_data" / name


def evaluate_directory(scores_dir, ground_truth=None, year=None):
    sections = read_score_files(scores_dir, ground_truth)
    return [evaluate_section(**section._asdict(), year=year) for section in sections]
