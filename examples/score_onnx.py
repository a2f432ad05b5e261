"""Score 16-bit WAV files with an exported detector, using only NumPy and onnxruntime.

python score_onnx.py fan_section_00.onnx recording.wav ...
"""

import struct
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
rate, shortest = int(about["sample_rate"]), int(about["min_samples"])
channel = int(about["channel"])


def chunks_of(path):
    """Return the chunks of a WAV file by name; exit if one is truncated."""
    with open(path, "rb") as file:
        content = file.read()
    chunks, at = {}, 12
    while content[:4] == b"RIFF" and at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        chunk = chunks[name] = content[at + 8 : at + 8 + size]
        if len(chunk) < size:
            sys.exit(f"{path}: truncated: {size} bytes claimed, {len(chunk)} present")
        at += 8 + size + size % 2
    if not {b"fmt ", b"data"} <= chunks.keys():
        sys.exit(f"{path}: not a WAV file")
    return chunks


for path in sys.argv[2:]:
    chunks = chunks_of(path)
    codec, n_channels, its_rate, _, _, bits = struct.unpack_from(
        "<HHIIHH", chunks[b"fmt "]
    )
    if codec == 0xFFFE:  # extensible format: the codec is stored later in the chunk
        (codec,) = struct.unpack_from("<H", chunks[b"fmt "], 24)
    if (codec, bits, its_rate) != (1, 16, rate):
        sys.exit(f"{path}: not a 16-bit WAV file at {rate} Hz")
    if channel >= n_channels:
        sys.exit(f"{path}: has no channel {channel} (counted from 0)")
    data = chunks[b"data"]
    samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2")[channel::n_channels]
    if len(samples) < shortest:
        sys.exit(f"{path}: shorter than {shortest} samples")
    score, p_value, is_anomaly = session.run(
        ["score", "p_value", "is_anomaly"], {"wave": samples / np.float32(32768)}
    )
    alarm = "ALARM" if is_anomaly else "normal"
    print(f"{path}: score {score:.4f}, p-value {p_value:.4f}, {alarm}")
