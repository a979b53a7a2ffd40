"""A build hook for the folders and the start-up files that are imported from another place than their own."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = {"envs": "sb3_dqn_ext/envs", "zoo_configs": "sb3_dqn_ext/zoo_configs"}
START_UP = {
    "sb3_dqn_ext/zoo/_start_hook.py": "_sb3_dqn_ext_hook.py",
    "sb3_dqn_ext/zoo/_start_hook.pth": "_sb3_dqn_ext_hook.pth",
}


class PlaceFiles(BuildHookInterface[Any]):  # type: ignore[misc, unused-ignore]
    """
    A hook that adds the folders and the start-up files to a wheel. An editable install finds the folders in the checkout and
    gets the start-up files only.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """
        Add the files.

        :param version: "standard" or "editable"
        :param build_data: hatchling's data of the build, changed in place
        """
        if version == "editable":
            build_data["force_include_editable"].update(START_UP)
        else:
            build_data["force_include"].update(START_UP | FOLDERS)
