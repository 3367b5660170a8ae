"""Peak memory of training one method on `emoji-categories`, measured in this process, which does nothing else.

    python -m benchmarks.hosts.peak_memory coop --ogen --keep runs/hosts/banks

The peak is that of the whole process (Python, torch, model, images, training), so `zero_shot`, which trains nothing,
is what the others are compared with. `hosts/study.py` runs it once for every row of its table. Linux only.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.options import parser_of
from benchmarks.common.resident import status
from benchmarks.ogen.tasks import emoji_tasks
from benchmarks.ogen.variants import Variant, make_host
from ogenlib.hosts import METHODS
from ogenlib.train.loop import fit

EPOCHS = 2  # with a teacher from the second on


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("host", choices=list(METHODS), help="method")
    parser.add_argument("--ogen", action="store_true", help="with OGEN")
    parser.add_argument("--keep", type=Path, required=True, help="folder of features; made there if absent")
    parser.add_argument("--prepare", action="store_true", help="only make the features, whose peak is not a method's")
    args = parser.parse_args()
    task = emoji_tasks([1], keep=args.keep)[1]
    if args.prepare:
        print(json.dumps(None))
        return
    host = make_host(Variant("", args.host, {} if args.ogen else None), task)
    if host.trainable() or host.training_free:
        fit(host, task.banks(host)[0], epochs=EPOCHS, seed=1)
    else:
        host.class_weights()
    print(json.dumps({"peak_mib": status("VmHWM")}))


if __name__ == "__main__":
    main()
