"""Small archives with the names and layouts of each year of the challenge."""

import io
import zipfile

from support.broken_server import Server

from gammavae_jax.data.download.catalogue import Archive


def contents_of(archive: Archive) -> dict[str, bytes]:
    """Return recordings by name; each one's content is its name, repeated."""
    is_train = "_train" in archive.name or archive.part == "dev"
    is_test = "_test" in archive.name or archive.part == "dev"
    names = [
        name
        for section in archive.sections
        for name in [
            *(_training(archive.year, section) if is_train else ()),
            *(_testing(archive.year, archive.part, section) if is_test else ()),
        ]
    ]
    names = [f"{archive.machine}/{name}" for name in names]
    return {name: 20 * name.encode() for name in names}


def packed(contents: dict[str, bytes]) -> bytes:
    """Return a zip archive of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in contents.items():
            file.writestr(name, data)
    return stream.getvalue()


def publish(server: Server, archives: list[Archive]) -> dict[Archive, bytes]:
    """Add archives to a server; return their bytes."""
    data = {archive: packed(contents_of(archive)) for archive in archives}
    for archive in archives:
        server.publish(archive.record, **{archive.name: data[archive]})
    return data


def _training(year: int, section: str) -> list[str]:
    if year == 2020:
        return [f"train/normal_id_{section}_0000000{n}.wav" for n in range(2)]
    names = [
        f"train/section_{section}_{domain}_train_normal_0000_a.wav"
        for domain in ("source", "target")
    ]
    if year >= 2025:
        names.append(f"supplemental/section_{section}_machine_0000_.wav")
    return names


def _testing(year: int, part: str, section: str) -> list[str]:
    labels = ("normal", "anomaly")
    if year == 2020:
        kinds = [f"{label}_" for label in labels] if part == "dev" else [""]
        return [f"test/{kind}id_{section}_00000000.wav" for kind in kinds]
    domains = ("source", "target")
    if part == "dev":
        return [
            f"{f'{domain}_' if year == 2021 else ''}test/"
            f"section_{section}_{domain}_test_{label}_0000_a.wav"
            for domain in domains
            for label in labels
        ]
    if year == 2021:
        return [
            f"{domain}_test/section_{section}_{domain}_test_0000.wav"
            for domain in domains
        ]
    return [f"test/section_{section}_0000.wav"]
