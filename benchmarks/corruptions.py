"""Time of each corruption of ImageNet-C at 224 px in one process, as a table in Markdown:
`python -m benchmarks.corruptions`.
"""

from time import process_time

import numpy as np

from densecl.evaluation.corruptions.corrupt import CORRUPTIONS, corrupt_image
from densecl.evaluation.imagenet_c import SEVERITIES

SIDE, ROUNDS = 224, 10


def main() -> None:
    print("| corruption | ms per image |\n|---|---|")
    times = {name: measure_corruption(name) for name in CORRUPTIONS}
    for name, milliseconds in times.items():
        print(f"| `{name}` | {milliseconds:.1f} |")
    print(f"| mean | {sum(times.values()) / len(times):.1f} |")


def measure_corruption(name: str) -> float:
    """CPU time in ms, the mean over the severities of the fastest of some rounds, with the JPEG
    compression that ends each corruption.
    """
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    fastest = dict.fromkeys(SEVERITIES, float("inf"))
    for round_ in range(ROUNDS):
        for severity in SEVERITIES:
            start = process_time()
            corrupt_image(image, name, severity, str(round_), CORRUPTIONS[name])
            fastest[severity] = min(fastest[severity], process_time() - start)
    return 1000 * sum(fastest.values()) / len(fastest)


if __name__ == "__main__":
    main()
