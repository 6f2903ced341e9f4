"""Prints pip constraints that hold every dependency at the lowest version that is declared."""

import re
import sys
import tomllib

extras = sys.argv[1:]
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
wanted = list(project["dependencies"])
for extra in extras:
    wanted += project["optional-dependencies"][extra]
for line in wanted:
    if inner := re.match(r"roml-jax\[([\w,]+)\]", line):
        for extra in inner[1].split(","):
            wanted += project["optional-dependencies"][extra]  # grows while it is walked through
    elif floor := re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", line):
        print(f"{floor[1]}=={floor[2]}")
