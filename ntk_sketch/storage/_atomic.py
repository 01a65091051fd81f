"""Atomic replacement of files."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A context with a temporary path in the same folder, whose file replaces `path` at the end.

    The new file is on the disk before it replaces the old one, in one step of the file system. If
    the block fails (an error, an interrupt, a full disk), the old file is unchanged and the
    temporary one is removed. If several processes write one path, the last one wins.

        with replacing("state.safetensors") as temporary:
            save_file(arrays, temporary)

    Raises:
        OSError: of a specific kind, such as FileNotFoundError for a folder that does not exist; if
            possible before the block is entered.
    """
    target = Path(os.path.realpath(path))  # through a link, as `open` writes
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {target}: the folder {target.parent} does not exist. Make it first:"
            f" os.makedirs({os.fspath(target.parent)!r})"
        )
    if target.is_dir():
        raise IsADirectoryError(
            f"cannot write {target}: it is a folder. Give the path of a file, such as"
            f" {target / 'saved.safetensors'}"
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield temporary
        os.chmod(temporary, mode)  # the mode of `open`, however the block wrote the file
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {target}: {error.strerror or error}. If a file was there before, it is"
            " unchanged",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
