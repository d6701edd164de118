"""uv run python -m tests.torture --seed 1 --images 5000 --kills 100 --folder /tmp/torture

Label many images on a cluster of three nodes while drivers, actors, workers and whole nodes are killed, chosen by the
seed; then hold the manifest against an undisturbed run's. Prints the report, which lies in FOLDER/report.json too;
exit status 1 where anything is missing. Stopped by --seconds, the same command goes on where it was (exit status 75).
"""

import argparse
import json
import sys
from pathlib import Path

from tests.torture.run import Torture, torture

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--images", type=int, default=5000)
parser.add_argument("--kills", type=int, default=100)
parser.add_argument("--shard-images", type=int, default=10)
parser.add_argument("--sleep-s", type=float, default=0.1, help="how long each image takes")
parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long, to go on later")
parser.add_argument("--folder", type=Path, required=True, help="images, manifests and report; kept")
arguments = vars(parser.parse_args())
report = torture(Torture(**arguments))
sys.stdout.write(json.dumps({**report, "kills": len(report["kills"])}, indent=1) + "\n")
sys.exit(75 if not report["finished"] else 1 if report["wrong"] else 0)
