import sys, json, subprocess, tempfile, os
from pathlib import Path
from server import serving

HERE = Path(__file__).parent


def run(name, address, dest, **o):
    p = subprocess.run(
        [sys.executable, str(HERE / "contender.py"), name, address, dest, json.dumps(o)],
        capture_output=True,
        text=True,
    )
    if p.returncode:
        print(p.stderr[-3000:])
        raise SystemExit(1)
    return json.loads(p.stdout.splitlines()[-1])


users, enr = int(sys.argv[1]), int(sys.argv[2])
with tempfile.TemporaryDirectory() as d, serving({"users": users, "enrollments": enr}) as a:
    for rnd in range(int(sys.argv[3])):
        for name in sys.argv[4:]:
            dest = f"{d}/{name}{rnd}.duckdb"
            o = {"endpoints": ["users", "enrollments"]} if name == "ours" else {}
            r = run(name, a, dest, **o)
            print(f"{name:16s}", {k: round(v, 2) for k, v in r.items()}, flush=True)
