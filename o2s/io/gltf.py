"""What must be known of a glTF file before it is read: the extensions that it cannot do without."""

import json
from pathlib import Path

from o2s.errors import InputError

# Packed geometry, which trimesh would take for what it is not.
_PACKED = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_mesh_quantization": "quantisation",
}


def check_extensions(path: Path, data: bytes) -> None:
    """Refuse a .glb or .gltf whose geometry is packed; anything that is no glTF passes.

    Raises:
        InputError: the file says that it cannot be read without one of these extensions.
    """
    if data[:4] == b"glTF":
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    try:
        required = json.loads(data).get("extensionsRequired", [])
        packed = [_PACKED[name] for name in required if name in _PACKED]
    except (ValueError, AttributeError, TypeError):
        return
    if packed:
        raise InputError(
            f"{path}: its geometry is packed ({', '.join(packed)}); export it without compression"
        )
