"""Where the folders and the start-up files go that do not lie where they are imported."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = {"envs": "sb3_dqn_ext/envs", "zoo_configs": "sb3_dqn_ext/zoo_configs"}
START_UP = {
    "sb3_dqn_ext/zoo/_start_hook.py": "_sb3_dqn_ext_hook.py",
    "sb3_dqn_ext/zoo/_start_hook.pth": "_sb3_dqn_ext_hook.pth",
}


class PlaceFiles(BuildHookInterface[Any]):  # type: ignore[misc, unused-ignore]
    """A wheel gets both; an editable install finds the folders in the checkout and needs the start-up files alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """
        :param version: "standard" or "editable"
        :param build_data: what hatchling builds from, changed in place
        """
        if version == "editable":
            build_data["force_include_editable"].update(START_UP)
        else:
            build_data["force_include"].update(START_UP | FOLDERS)
