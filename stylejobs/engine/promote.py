"""Moves an alias of the registry to a version that exists."""

from stylejobs.config.schema import PromoteConfig
from stylejobs.engine.results import JobResult


def promote(config: PromoteConfig) -> JobResult:
    """Gives `alias` to the version that `model` names.

    Raises:
        ModelError: there is no such version or alias.
        RegistryError: the registry cannot be reached.
    """
    from stylejobs.tracking.registry import move_alias, resolve_version

    version = resolve_version(config.model)
    previous = move_alias(version.name, version.version, config.alias)
    before = "no version had it" if previous is None else f"it was version {previous}"
    return JobResult(
        "promote",
        message=f"{config.alias} of {version.name} is now version {version.version} ({before})",
        model={"uri": version.uri, "name": version.name, "version": version.version, "sha256": version.sha256},
        details={"alias": config.alias, "previous_version": previous},
    )
