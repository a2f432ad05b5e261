"""Score 16-bit WAV files with an exported detector, using only NumPy and onnxruntime.

python score_onnx.py fan_section_00.onnx recording.wav ...
"""

import sys
import wave

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
rate, shortest = int(about["sample_rate"]), int(about["min_samples"])
channel = int(about["channel"])
for path in sys.argv[2:]:
    with wave.open(path) as file:
        if file.getsampwidth() != 2 or file.getframerate() != rate:
            sys.exit(f"{path}: not a 16-bit WAV file at {rate} Hz")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        if channel >= file.getnchannels():
            sys.exit(f"{path}: no channel {channel} (counted from 0)")
        samples = samples[channel :: file.getnchannels()]
    if len(samples) < shortest:
        sys.exit(f"{path}: shorter than {shortest} samples")
    score, p_value, is_anomaly = session.run(
        ["score", "p_value", "is_anomaly"], {"wave": samples / np.float32(32768)}
    )
    alarm = "ALARM" if is_anomaly else "normal"
    print(f"{path}: score {score:.4f}, p-value {p_value:.4f}, {alarm}")
