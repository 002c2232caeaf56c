# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""The VMM's control socket (docs/vmm.md), as a test uses it."""

import json
import socket

from common import Failure, PATIENCE


class Refused(Failure):
    """The VMM refused a command; the text says why."""


class Control:
    """A connection to a guest's VMM."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30 * PATIENCE)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw", encoding="utf-8")

    def begin(self, command, **arguments):
        """Send a command, whose answer comes behind those of the commands before."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = {"execute": command, **({"arguments": named} if named else {})}
        self.file.write(json.dumps(request) + "\n")
        self.file.flush()

    def answer(self):
        """Wait for the next answer."""
        answer = json.loads(self.file.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["return"]

    def __call__(self, command, **arguments):
        """Carry out a command; its answer."""
        self.begin(command, **arguments)
        return self.answer()

    def refuses(self, command, *words, **arguments):
        """The command must be refused, with one of these words in the reason."""
        self.begin(command, **arguments)
        self.is_refused(command, *words)

    def is_refused(self, command, *words):
        """The same of the command that was begun."""
        try:
            self.answer()
        except Refused as refused:
            if any(word in str(refused) for word in words):
                return
            raise Failure(f"{command} was refused for another reason than {words}: {refused}") from None
        raise Failure(f"{command} was not refused")
