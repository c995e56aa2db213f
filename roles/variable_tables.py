"""Write the variable tables of the roles' README files from their argument specs.

    python3 roles/variable_tables.py            write them
    python3 roles/variable_tables.py --check    change nothing; say what differs, exit status 1

Both also compare the specs with defaults/main.yml: the same names with the same values.
"""

import re
import sys
from pathlib import Path

import yaml

BEGIN, END = "<!-- variables: written by roles/variable_tables.py -->", "<!-- end of variables -->"


def plain(text: str) -> str:
    """Ansible's markup (C(code), V(value), O(option)) as Markdown, fit for a table's cell."""
    text = re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", " ".join(text.split()))
    return text.replace("|", "\\|")


def shown(value) -> str:
    if isinstance(value, str) and "{{" in value:
        return "computed"
    if value in ("", [], {}, None):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "`" + ", ".join(map(str, value)) + "`"
    return f"`{value}`"


def table(options: dict) -> str:
    rows = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        default = shown(option.get("default"))
        rows.append(f"| `{name}` | {kind} | {default} | {plain(option['description'])} |")
    return "\n".join(rows)


def differences(role: Path, options: dict) -> list[str]:
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text(encoding="utf-8"))
    found = [f"{role.name}: {n} has no default" for n in options.keys() - defaults.keys()]
    found += [f"{role.name}: {n} has no argument spec" for n in defaults.keys() - options.keys()]
    for name in defaults.keys() & options.keys():
        documented, real = options[name].get("default"), defaults[name]
        if documented != real:
            found.append(f"{role.name}: {name} is {real!r}, its argument spec says {documented!r}")
    return sorted(found)


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    wrong = []
    for specs in sorted(Path(__file__).parent.glob("*/meta/argument_specs.yml")):
        role = specs.parent.parent
        spec = yaml.safe_load(specs.read_text(encoding="utf-8"))
        options = spec["argument_specs"]["main"]["options"]
        wrong += differences(role, options)
        readme = role / "README.md"
        text = readme.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        new = f"{before}{BEGIN}\n{table(options)}\n{END}{after}"
        if new != text:
            if check:
                wrong.append(f"{readme}: its table is old: run python3 roles/variable_tables.py")
            else:
                readme.write_text(new, encoding="utf-8")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
