"""Debian packages: fetched by name, unpacked, not installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tqdm import tqdm

LANGUAGES = ("en", "es", "fr", "it", "ru")
PACKAGES = (
    *(f"asterisk-core-sounds-{language}" for language in LANGUAGES),
    *(f"asterisk-core-sounds-{language}-g722" for language in LANGUAGES),
    "tuxpaint-stamps-default",
    "openttd-opensfx",
    "sonic-pi-samples",
    "lugaru-data",
    "sound-theme-freedesktop",
    "gcompris-qt-data",
)
MORE_PACKAGES = {
    "fillets": ("fillets-ng-data-cs", "fillets-ng-data-nl"),
    "klettres": ("klettres-data",),
    "ktuberling": ("ktuberling-data",),
    "hedgewars": ("hedgewars-data",),
    "supertuxkart": ("supertuxkart-data",),
    "colobot": ("colobot-common-sounds",),
    "buckle": ("bucklespring-data",),
    "rescue": ("searchandrescue-data",),
}
"""What ``--more`` adds: kind of recordings -> packages."""


def fetch(folder, packages=PACKAGES):
    """Download and unpack packages that are not there yet.

    Needs ``apt-get`` and ``dpkg``, and no rights of an administrator.

    Arguments
    ---------
    folder : pathlib.Path
        Each package becomes a folder in it.
    packages : sequence of str
        Names.

    Raises
    ------
    RuntimeError
        When this is no Debian or Ubuntu, or a package cannot be had.
    """
    missing = [name for name in packages if not (folder / name).is_dir()]
    if not missing:
        return
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise RuntimeError(
                f"{tool} is not here: this recipe needs Debian or Ubuntu."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name in tqdm(missing, "packages", unit="package", disable=None):
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _call(["apt-get", "download", "-qq", name], work, name)
            (archive,) = Path(work).glob("*.deb")
            _call(["dpkg", "-x", str(archive), "unpacked"], work, name)
            os.rename(Path(work) / "unpacked", folder / name)


def _call(command, folder, name):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"Package {name}: {' '.join(command[:2])} failed ({done.stderr.strip()}). "
            "Run `apt-get update` first; Ubuntu has these packages in `universe`."
        )
