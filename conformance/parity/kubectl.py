"""Runs the steps with real kubectl against one server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from parity.normalise import normalised
from parity.scenario import HERE, Step

_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one invocation, normalised."""

    code: int
    output: str
    errors: str

    def lines(self, *, ordered: bool) -> list[str]:
        """Everything, a line each, so that it can be compared."""
        shown = self.output.splitlines()
        if not ordered:
            shown.sort()
        return [*shown, *(f"! {line}" for line in self.errors.splitlines()), f"= exit code {self.code}"]


class Side:
    """One server and the commands that run against it."""

    def __init__(self, name: str, kubeconfig: Path, home: Path) -> None:
        self.name = name
        program = Path(sys.executable).parent / "kubectl"
        home.mkdir(parents=True, exist_ok=True)
        self._program = str(program)
        self._environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "TMPDIR": str(home),
            "KUBECONFIG": str(kubeconfig),
        }
        self._background: dict[str, asyncio.subprocess.Process] = {}
        self._heard: dict[str, list[bytes]] = {}

    async def run(self, steps: Sequence[Step]) -> list[Outcome | None]:
        """The outcome of every step, in their order; None for the beginning of one in the background."""
        try:
            return [await self._step(step) for step in steps]
        finally:
            for process in self._background.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def kubectl(self, *arguments: str) -> Outcome:
        """One command outside the scenario."""
        outcome = await self._step(Step(0, "", arguments))
        assert outcome is not None
        return outcome

    async def _step(self, step: Step) -> Outcome | None:
        if step.end:
            return await self._end(step)
        environment = self._environment | ({"KUBE_EDITOR": step.editor} if step.editor else {})
        process = await asyncio.create_subprocess_exec(
            self._program,
            *step.arguments,
            cwd=HERE / "files",
            env=environment,
            stdin=asyncio.subprocess.PIPE if step.given else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if step.watch:
            assert process.stdout is not None
            self._background[step.watch] = process
            # It watches once it has shown what there was.
            self._heard[step.watch] = [
                await asyncio.wait_for(process.stdout.readline(), _SECONDS) for _ in range(step.lines)
            ]
            return None
        try:
            output, errors = await asyncio.wait_for(process.communicate(step.given.encode() or None), _SECONDS)
        except TimeoutError:
            process.kill()
            output, errors = await process.communicate()
            errors += b"the parity script waited in vain\n"
        code = process.returncode
        assert code is not None
        return Outcome(code, normalised(output.decode()), normalised(errors.decode()))

    async def _end(self, step: Step) -> Outcome:
        process = self._background.pop(step.end)
        heard = self._heard.pop(step.end)
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(TimeoutError):
            while len(heard) < step.lines:
                line = await asyncio.wait_for(process.stdout.readline(), _SECONDS / 4)
                if not line:
                    break
                heard.append(line)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        errors = await process.stderr.read()
        await process.wait()
        return Outcome(0, normalised(b"".join(heard).decode()), normalised(errors.decode()))
