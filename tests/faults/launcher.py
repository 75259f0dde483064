"""One life of a process under test: what is to go wrong with it is armed, then its own main runs.

python -m tests.faults.launcher '{"arguments": ["train", ...], "point": "in the joiner", ...}'
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from tests.faults.mutations import MUTATIONS
from tests.faults.points import arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a process does, and what goes wrong.

    Attributes:
        arguments: of the `headrace` command, or "produce" and those of `tests.faults.producer`.
        point: name of a point at which it kills itself; "" for none.
        call: at which call of that point.
        mutation: name of a mistake built into it; "" for none.
    """

    arguments: tuple[str, ...]
    point: str = ""
    call: int = 1
    mutation: str = ""

    def to_json(self) -> str:
        """Return what `plan_from_json` reads."""
        return json.dumps(asdict(self))

    def run(self) -> None:
        """Become that process; does not return."""
        if self.arguments[0] == "produce":
            from tests.faults.producer import main as produce

            sys.exit(produce(self.arguments[1:]))
        if self.mutation:
            MUTATIONS[self.mutation]()
        if self.point:
            arm(self.point, self.call)
        from app.cli import main

        sys.argv = ["headrace", *self.arguments]
        main()


def plan_from_json(text: str) -> Plan:
    """Return the plan that `Plan.to_json` wrote."""
    fields = json.loads(text)
    return Plan(**{**fields, "arguments": tuple(fields["arguments"])})


if __name__ == "__main__":
    plan_from_json(sys.argv[1]).run()
