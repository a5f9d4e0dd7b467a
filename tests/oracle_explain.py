"""`python tests/oracle_explain.py [--pairs N] [--seed N]`: what `explain` says against real Envoy, at length."""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support.explain_oracle import Oracle

REQUESTS = 100
"""Per world."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000, help="manifest sets x requests, at least")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the first world; each world's is printed"
    )
    parser.add_argument("--no-shrink", action="store_true", help="show a disagreement with all of its manifests")
    arguments = parser.parse_args()
    oracle = Oracle()
    seed, disagreements = arguments.seed, 0
    try:
        while oracle.pairs < arguments.pairs:
            difference = oracle.run(seed, REQUESTS, not arguments.no_shrink)
            if difference:
                disagreements += 1
                print(f"DISAGREEMENT\n{difference}", flush=True)
                if disagreements == 5:
                    break
            elif seed % 20 == 0:
                print(f"seed {seed}: {oracle.pairs} pairs", flush=True)
            seed += 1
    finally:
        oracle.close()
    print(", ".join(f"{name}: {count}" for name, count in sorted(oracle.outcomes.items())))
    print(f"{oracle.pairs} pairs, seeds {arguments.seed} to {seed - 1}, {disagreements} disagreements")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
