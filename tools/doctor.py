"""Shows every BNET of a config's model and how it will train, and warns of what usually goes wrong.

tools/doctor.py configs/faster_rcnn_r50_bnet5_fpn_1x.py
tools/doctor.py my_config.py work_dirs/my_config/epoch_12.pth --json
"""

from __future__ import annotations

from bnet_mm.analysis.doctor import examine
from bnet_mm.engine.command_line import config_parser, parsed
from bnet_mm.engine.config import load_config
from bnet_mm.reports.doctor import as_json, examination_tables
from bnet_mm.reports.table import show


def main() -> None:
    parser = config_parser('Examine the norms of a model.')
    parser.add_argument('checkpoint', nargs='?', help='weights to load first')
    parser.add_argument('--json', action='store_true', help='print JSON')
    with parsed(parser) as args:
        examination = examine(load_config(args.config, args.cfg_options), args.checkpoint)
    if args.json:
        print(as_json(examination))
    else:
        show(examination_tables(examination), wrap=True)


if __name__ == '__main__':
    main()
