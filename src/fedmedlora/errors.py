"""The exception tree: one base, one class for each kind of thing that can be wrong.

Messages say what is wrong, with the offending value and place (file, line, YAML key), and what to
do. They never hold note text: ids, offsets and counts only, so that a message may leave a site.
"""

from __future__ import annotations

from pathlib import Path


class FedMedLoRAError(Exception):
    """Base of every error that this package raises on purpose."""


class Ended(SystemExit):
    """This process was told to end (SIGTERM, SIGHUP): nobody's failure, so nobody may answer it."""


class SchemaError(FedMedLoRAError):
    """A document, entity, relation or scheme breaks a rule of the data model."""


class DataError(FedMedLoRAError):
    """A data file cannot be read as what it should be.

    Args:
        message: what is wrong and what to do.
        path: the file, if known.
        line: 1-based line number, if known.
    """

    def __init__(
        self, message: str, *, path: Path | str | None = None, line: int | None = None
    ) -> None:
        place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(place + message)
        self.path = None if path is None else str(path)
        self.line = line


class ConfigError(FedMedLoRAError):
    """A study file, or a setting given on the command line, is wrong; the message names the key."""


class BackboneError(FedMedLoRAError):
    """A backbone or its tokenizer cannot be loaded or used."""


class AdapterError(FedMedLoRAError):
    """An adapter is not what its manifest or the backbone says it must be."""


class FederationError(FedMedLoRAError):
    """A round cannot be completed: too few sites answered, or what they sent was refused."""


class PrivacyError(FedMedLoRAError):
    """A privacy budget is spent or would be overspent, or cannot be accounted for."""


class RequestError(FedMedLoRAError):
    """A site was asked by somebody who is not its coordinator."""


class EndpointError(FedMedLoRAError):
    """An API endpoint refused, failed or answered something else than it should."""


class RunError(FedMedLoRAError):
    """A run folder cannot be written, read or resumed."""


class MisnamedError(RunError):
    """What was named is not there, is taken already, or is of another kind than is asked for."""


class NoRunError(MisnamedError):
    """The folder that was named is no run folder, or not one that this study may be run in."""
